package credential

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kvorum/kvorum/internal/env"
)

func key() []byte { return []byte("01234567890123456789012345678901") }

func TestPasswords(t *testing.T) {
	p := NewPasswords(LeastCost, key())
	hash, err := p.Hash("secret")
	if err != nil {
		t.Fatal(err)
	}
	fits := func(user string, hash []byte, password string) bool {
		t.Helper()
		ok, err := p.Fits(t.Context(), user, hash, password)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	for range 2 { // by bcrypt, and from memory
		if !fits("ann", hash, "secret") || fits("ann", hash, "Secret") || fits("ann", hash, "") {
			t.Fatal("misjudged")
		}
	}
	if fits("bob", hash, "other") || fits("ann", nil, "secret") || fits("nobody", nil, "") {
		t.Fatal("let in")
	}
	other, _ := p.Hash("other")
	if fits("ann", other, "secret") || !fits("ann", other, "other") || fits("ann", other, "secret") {
		t.Fatal("a former password is good for a new hash")
	}
	long := strings.Repeat("x", 73)
	if _, err := p.Hash(long); err == nil || p.Check(long) == nil || err.Error() != "bcrypt: password length exceeds 72 bytes" || p.Check(long).Error() != err.Error() {
		t.Errorf("73 bytes: %v", err)
	}
	for _, f := range p.fresh {
		if strings.Contains(string(f.mac[:])+f.hash, "secret") || strings.Contains(string(f.mac[:])+f.hash, "other") {
			t.Error("a password in memory")
		}
	}
}

// Who has authenticated once waits for no bcrypt, not even behind those who guess.
func TestAPasswordIsHashedOnce(t *testing.T) {
	p := NewPasswords(LeastCost, key())
	hash, _ := p.Hash("secret")
	if ok, _ := p.Fits(t.Context(), "ann", hash, "secret"); !ok {
		t.Fatal("not let in")
	}
	for range cap(p.turns) {
		p.turns <- struct{}{}
	}
	if ok, err := p.Fits(t.Context(), "ann", hash, "secret"); !ok || err != nil {
		t.Fatal("hashed again")
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := p.Fits(ended, "ann", hash, "guess"); !errors.Is(err, context.Canceled) {
		t.Errorf("a guess did not wait: %v", err)
	}
}

// clock is a clock that stands.
type clock struct{ wall time.Time }

func (c *clock) Now() env.Instant { return 0 }
func (c *clock) Wall() time.Time  { return c.wall }

// keyFiles are keys of each kind, by the names that the options have for them.
func keyFiles(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{"hs.priv": []byte("a shared secret"), "bad": []byte("no key")}
	add := func(name string, private any, public crypto.PublicKey) {
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		files[name+".priv"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		if der, err = x509.MarshalPKIXPublicKey(public); err != nil {
			t.Fatal(err)
		}
		files[name+".pub"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	for _, name := range []string{"rs", "rs2"} {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		add(name, k, &k.PublicKey)
	}
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	add("es", ec, &ec.PublicKey)
	public, ed, _ := ed25519.GenerateKey(rand.Reader)
	add("ed", ed, public)
	return files
}

func TestSignedTokens(t *testing.T) {
	files := keyFiles(t)
	now := &clock{time.Unix(1_700_000_000, 0)}
	open := func(text string) (*JWT, error) {
		o, err := ParseTokenOptions(text)
		if err != nil {
			return nil, err
		}
		if !o.JWT {
			t.Fatalf("%s: not jwt", text)
		}
		return NewJWT(o, func(name string) ([]byte, error) {
			if f, ok := files[name]; ok {
				return f, nil
			}
			return nil, errors.New("no such file")
		}, now)
	}
	must := func(text string) *JWT {
		t.Helper()
		j, err := open(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return j
	}
	for method, file := range map[string]string{"RS256": "rs", "RS512": "rs", "PS256": "rs", "ES256": "es", "HS256": "hs", "HS512": "hs", "EdDSA": "ed"} {
		j := must(fmt.Sprintf("jwt,sign-method=%s,priv-key=%s.priv,ttl=10s", method, file))
		token, err := j.Sign("ann", 7)
		if err != nil {
			t.Fatal(method, err)
		}
		readers := []*JWT{j, j}
		if file != "hs" {
			verify := must(fmt.Sprintf("jwt,sign-method=%s,pub-key=%s.pub", method, file))
			must(fmt.Sprintf("jwt,sign-method=%s,pub-key=%s.pub,priv-key=%s.priv", method, file, file))
			if _, err := verify.Sign("ann", 7); !errors.Is(err, ErrVerifyOnly) {
				t.Errorf("%s: signed without a key: %v", method, err)
			}
			readers = append(readers, verify)
		}
		for _, j := range readers {
			if user, revision, ok := j.Read(token); !ok || user != "ann" || revision != 7 {
				t.Errorf("%s: read %q %d %v", method, user, revision, ok)
			}
		}
		changed := token[:len(token)-8] + "AAAAAAAA"
		if _, _, ok := j.Read(changed); ok {
			t.Errorf("%s: took a false signature", method)
		}
		now.wall = now.wall.Add(11 * time.Second)
		for _, j := range readers {
			if _, _, ok := j.Read(token); ok {
				t.Errorf("%s: took one that has ended", method)
			}
		}
	}
	rs := must("jwt,sign-method=RS256,priv-key=rs.priv")
	for name, token := range map[string]string{
		"none":           unsigned(t),
		"another method": signed(t, jwt.SigningMethodHS256, files["rs.pub"], jwt.MapClaims{"username": "root", "revision": 1}),
		"no name":        signed(t, jwt.SigningMethodRS256, rs.sign, jwt.MapClaims{"revision": 1}),
		"no revision":    signed(t, jwt.SigningMethodRS256, rs.sign, jwt.MapClaims{"username": "root"}),
		"a negative one": signed(t, jwt.SigningMethodRS256, rs.sign, jwt.MapClaims{"username": "root", "revision": -1}),
		"nothing":        "", "letters": "abc.def.ghi",
	} {
		if _, _, ok := rs.Read(token); ok {
			t.Errorf("took a token with %s", name)
		}
	}
	for text, want := range map[string]error{
		"jwt": ErrMethod, "jwt,sign-method=none": ErrMethod, "jwt,sign-method=XX": ErrMethod,
		"jwt,sign-method=RS256": ErrMissingKey, "jwt,sign-method=HS256": ErrMissingKey, "jwt,sign-method=RS256,priv-key=rs.priv,pub-key=rs2.pub": ErrMismatch,
		"jwt,odd": ErrOptions, "jwt,odd=1": ErrOptions, "jwt,ttl=soon": ErrOptions, "jwt,ttl=-1s": ErrOptions, "jwt,ttl=1s,ttl=2s": ErrOptions, "other": ErrOptions,
	} {
		if _, err := open(text); !errors.Is(err, want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"jwt,sign-method=RS256,priv-key=bad", "jwt,sign-method=ES256,priv-key=rs.priv", "jwt,sign-method=EdDSA,pub-key=missing"} {
		if _, err := open(text); err == nil {
			t.Errorf("%s: taken", text)
		}
	}
}

func signed(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	text, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func unsigned(t *testing.T) string {
	return signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.MapClaims{"username": "root", "revision": 1})
}
