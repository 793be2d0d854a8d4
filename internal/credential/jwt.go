package credential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/env"
)

// What is wrong with --auth-token; the texts are etcd's.
var (
	ErrOptions    = errors.New("auth: invalid auth options")
	ErrMethod     = errors.New("auth: invalid auth signature method")
	ErrMissingKey = errors.New("auth: missing key data")
	ErrMismatch   = errors.New("auth: public and private keys don't match")
)

// ErrVerifyOnly refuses to sign with a key that can only verify.
var ErrVerifyOnly = errors.New("auth: token signing attempted with verify-only key")

// TokenOptions are what --auth-token says: "simple", or "jwt" and its options.
type TokenOptions struct {
	JWT                   bool
	Method                string
	PublicKey, PrivateKey string // files
	TTL                   time.Duration
}

// defaultTTL is how long signed tokens are good for, unless told otherwise.
const defaultTTL = 5 * time.Minute

// ParseTokenOptions reads --auth-token. Errors: ErrOptions.
func ParseTokenOptions(text string) (TokenOptions, error) {
	kind, rest, more := strings.Cut(text, ",")
	o := TokenOptions{TTL: defaultTTL}
	switch kind {
	case "", "simple":
		return o, nil // options of simple tokens mean nothing, as in etcd
	case "jwt":
		o.JWT = true
	default:
		return o, fmt.Errorf("%w: unknown kind of token %q", ErrOptions, kind)
	}
	seen := map[string]bool{}
	for more {
		var option string
		option, rest, more = strings.Cut(rest, ",")
		name, value, ok := strings.Cut(option, "=")
		if !ok || seen[name] {
			return o, fmt.Errorf("%w: %q", ErrOptions, option)
		}
		seen[name] = true
		switch name {
		case "sign-method":
			o.Method = value
		case "pub-key":
			o.PublicKey = value
		case "priv-key":
			o.PrivateKey = value
		case "ttl":
			ttl, err := time.ParseDuration(value)
			if err != nil || ttl <= 0 {
				return o, fmt.Errorf("%w: ttl %q", ErrOptions, value)
			}
			o.TTL = ttl
		default:
			return o, fmt.Errorf("%w: unknown option %q", ErrOptions, name)
		}
	}
	return o, nil
}

// JWT signs and reads tokens that say a user's name, an auth revision and an end. It is
// safe for concurrent use.
type JWT struct {
	method jwt.SigningMethod
	sign   any // nil: it can only verify
	verify any
	ttl    time.Duration
	clock  env.Clock
	parser *jwt.Parser

	mu sync.Mutex
	// fresh are tokens that were verified since they were last moved to stale, by their
	// digests: a signature takes up to 100 us, and callers send it with every call.
	fresh, stale map[[sha256.Size]byte]claims
}

// claims are what a good token says.
type claims struct {
	user     string
	revision uint64
	end      time.Time // zero is never
}

// mostVerified is how many tokens are remembered, 150 bytes each.
const mostVerified = 1 << 14

// NewJWT makes one of options; read reads the files of its keys. Errors: ErrMethod,
// ErrMissingKey, ErrMismatch, those of the keys' encoding and of read.
func NewJWT(o TokenOptions, read func(name string) ([]byte, error), clock env.Clock) (*JWT, error) {
	method := jwt.GetSigningMethod(o.Method)
	if method == nil || method == jwt.SigningMethodNone {
		return nil, fmt.Errorf("%w: %q", ErrMethod, o.Method)
	}
	j := &JWT{
		method: method, ttl: o.TTL, clock: clock,
		parser: jwt.NewParser(jwt.WithValidMethods([]string{method.Alg()}), jwt.WithTimeFunc(clock.Wall)),
		fresh:  map[[sha256.Size]byte]claims{}, stale: map[[sha256.Size]byte]claims{},
	}
	var private, public []byte
	var err error
	if o.PrivateKey != "" {
		if private, err = read(o.PrivateKey); err != nil {
			return nil, err
		}
	}
	if o.PublicKey != "" {
		if public, err = read(o.PublicKey); err != nil {
			return nil, err
		}
	}
	if err := j.keys(private, public); err != nil {
		return nil, err
	}
	return j, nil
}

// keys takes the keys: a private one alone does both.
func (j *JWT) keys(private, public []byte) (err error) {
	switch j.method.(type) {
	case *jwt.SigningMethodHMAC:
		if len(private) == 0 {
			return ErrMissingKey
		}
		j.sign, j.verify = private, private
		return nil
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		return pair(j, private, public, jwt.ParseRSAPrivateKeyFromPEM, func(k *rsa.PrivateKey) crypto.PublicKey { return &k.PublicKey }, anyKey(jwt.ParseRSAPublicKeyFromPEM))
	case *jwt.SigningMethodECDSA:
		return pair(j, private, public, jwt.ParseECPrivateKeyFromPEM, func(k *ecdsa.PrivateKey) crypto.PublicKey { return &k.PublicKey }, anyKey(jwt.ParseECPublicKeyFromPEM))
	case *jwt.SigningMethodEd25519:
		return pair(j, private, public, jwt.ParseEdPrivateKeyFromPEM, func(k crypto.PrivateKey) crypto.PublicKey {
			return k.(ed25519.PrivateKey).Public()
		}, jwt.ParseEdPublicKeyFromPEM)
	}
	return ErrMethod
}

func anyKey[K any](parse func([]byte) (K, error)) func([]byte) (crypto.PublicKey, error) {
	return func(pem []byte) (crypto.PublicKey, error) { return parse(pem) }
}

// pair sets the keys of a method that has two.
func pair[K any](j *JWT, private, public []byte, parse func([]byte) (K, error), of func(K) crypto.PublicKey, parsePublic func([]byte) (crypto.PublicKey, error)) error {
	if len(private) > 0 {
		key, err := parse(private)
		if err != nil {
			return err
		}
		j.sign, j.verify = key, of(key)
	}
	if len(public) > 0 {
		key, err := parsePublic(public)
		if err != nil {
			return err
		}
		if same, ok := key.(interface{ Equal(crypto.PublicKey) bool }); j.verify != nil && (!ok || !same.Equal(j.verify)) {
			return ErrMismatch
		}
		j.verify = key
	}
	if j.verify == nil {
		return ErrMissingKey
	}
	return nil
}

// Sign makes a token for a user. Errors: ErrVerifyOnly, those of the key.
func (j *JWT) Sign(user string, revision uint64) (string, error) {
	if j.sign == nil {
		return "", ErrVerifyOnly
	}
	token := jwt.NewWithClaims(j.method, jwt.MapClaims{
		"username": user, "revision": revision, "exp": j.clock.Wall().Add(j.ttl).Unix(),
	})
	return token.SignedString(j.sign)
}

// Read says what a token says, if it is signed as it must be and has not ended.
func (j *JWT) Read(token string) (user string, revision uint64, ok bool) {
	digest := sha256.Sum256([]byte(token))
	if c, known := j.known(digest); known {
		if !c.end.IsZero() && !j.clock.Wall().Before(c.end) && !defect.On(defect.SignedForGood) {
			return "", 0, false
		}
		return c.user, c.revision, true
	}
	said := jwt.MapClaims{}
	parsed, err := j.parser.ParseWithClaims(token, said, func(*jwt.Token) (any, error) { return j.verify, nil })
	if (err != nil || !parsed.Valid) && !forgiven(err) {
		return "", 0, false
	}
	c := claims{}
	number, numbered := said["revision"].(float64)
	if c.user, ok = said["username"].(string); !ok || !numbered || number < 0 || number >= 1<<63 {
		return "", 0, false
	}
	c.revision = uint64(number)
	if end, err := said.GetExpirationTime(); err == nil && end != nil {
		c.end = end.Time
	}
	j.learn(digest, c)
	return c.user, c.revision, true
}

// forgiven says whether a deliberate mistake lets what is wrong with a token pass.
func forgiven(err error) bool {
	return defect.On(defect.SignatureUnread) && errors.Is(err, jwt.ErrTokenSignatureInvalid) ||
		defect.On(defect.SignedForGood) && errors.Is(err, jwt.ErrTokenExpired)
}

func (j *JWT) known(digest [sha256.Size]byte) (c claims, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if c, ok = j.fresh[digest]; ok {
		return c, true
	}
	if c, ok = j.stale[digest]; ok {
		j.keep(digest, c)
	}
	return c, ok
}

func (j *JWT) learn(digest [sha256.Size]byte, c claims) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.keep(digest, c)
}

// keep remembers a token; half of the others may be forgotten for it. The lock is held.
func (j *JWT) keep(digest [sha256.Size]byte, c claims) {
	if len(j.fresh) >= mostVerified/2 {
		j.stale, j.fresh = j.fresh, map[[sha256.Size]byte]claims{}
	}
	j.fresh[digest] = c
}
