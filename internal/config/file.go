package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// ReadFile reads a whole file, as os.ReadFile does.
type ReadFile func(name string) ([]byte, error)

// blocks are the keys of a file whose values are keys and values in turn, and the
// flags that those stand for (spec/server-ops.md 1.1). A flag that is in no block is
// a key of the first level, by its name.
var blocks = map[string]map[string]string{
	"client-transport-security": {
		"cert-file": "cert-file", "key-file": "key-file", "client-cert-file": "client-cert-file", "client-key-file": "client-key-file",
		"client-cert-auth": "client-cert-auth", "trusted-ca-file": "trusted-ca-file", "auto-tls": "auto-tls",
		"allowed-hostname": "client-cert-allowed-hostname", "crl-file": "client-crl-file",
	},
	"peer-transport-security": {
		"cert-file": "peer-cert-file", "key-file": "peer-key-file",
		"client-cert-file": "peer-client-cert-file", "client-key-file": "peer-client-key-file",
		"client-cert-auth": "peer-client-cert-auth", "trusted-ca-file": "peer-trusted-ca-file", "auto-tls": "peer-auto-tls",
		"allowed-cn": "peer-cert-allowed-cn", "allowed-hostname": "peer-cert-allowed-hostname",
		"skip-client-san-verification": "peer-skip-client-san-verification", "crl-file": "peer-crl-file",
	},
	"socket-options": {"reuse-port": "socket-reuse-port", "reuse-address": "socket-reuse-address"},
	"discovery-config": {
		"token": "discovery-token", "client.endpoints": "discovery-endpoints", "client.dial-timeout": "discovery-dial-timeout",
		"client.request-timeout": "discovery-request-timeout", "client.keepalive-time": "discovery-keepalive-time",
		"client.keepalive-timeout": "discovery-keepalive-timeout", "client.secure.cert": "discovery-cert",
		"client.secure.key": "discovery-key", "client.secure.cacert": "discovery-cacert",
		"client.secure.insecure-transport":       "discovery-insecure-transport",
		"client.secure.insecure-skip-tls-verify": "discovery-insecure-skip-tls-verify",
		"client.auth.username":                   "discovery-user", "client.auth.password": "discovery-password",
	},
}

// fallbackKey stands in etcd's sample with a value that the flag refuses.
const fallbackKey = "discovery-fallback"

// unread are flags that a file cannot give.
var unread = []string{"config-file", fallbackKey}

// keys maps every path that a file may have, its parts joined by dots, to the option
// that it gives.
func keys() map[string]*option {
	byName, paths := map[string]*option{}, map[string]*option{}
	for i := range table {
		if o := &table[i]; o.state != silent && !slices.Contains(unread, o.name) {
			byName[o.name] = o
		}
	}
	for block, inner := range blocks {
		for path, name := range inner {
			paths[block+"."+path] = byName[name]
			delete(byName, name)
		}
	}
	maps.Copy(paths, byName)
	return paths
}

// file reads the configuration file in the place of flags and variables.
func (p *parser) file(name string) error {
	p.config = Default()
	p.config.DataDir, p.config.InitialCluster, p.config.File = "", "", name
	p.given = map[string]string{}
	text, err := p.read(name)
	if err != nil {
		return failure(fmt.Errorf("cannot read the configuration file: %w", err))
	}
	p.warn(slog.LevelInfo, "all settings come from the configuration file; other flags and environment variables are ignored",
		slog.String("path", name))
	if err := p.document(text); err != nil {
		return failure(fmt.Errorf("configuration file %s: %w", name, err))
	}
	return nil
}

// document reads the text of a file: YAML, of which JSON is a part.
func (p *parser) document(text []byte) error {
	plain, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(plain))
	decoder.UseNumber() // sizes need more digits than a float has
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return err
	}
	if tree == nil {
		return nil // empty, or comments only
	}
	top, ok := tree.(map[string]any)
	if !ok {
		return fmt.Errorf("keys and values are expected, not %s", kindOf(tree))
	}
	return p.block("", top, keys())
}

// block sets what a block of keys says. A key that nobody knows is told of and
// left: files are older than programs.
func (p *parser) block(path string, values map[string]any, known map[string]*option) error {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		value, at := values[key], path+key
		inner, isBlock := value.(map[string]any)
		o := known[at]
		switch {
		case value == nil: // as if it were not there
		case at == fallbackKey: // etcd does not look at it either
		case o != nil:
			if err := p.set(o, value); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
		case isBlock && begins(known, at+"."):
			if err := p.block(at+".", inner, known); err != nil {
				return err
			}
		case at == "client-transport-security.allowed-cn" || at == "client-transport-security.skip-client-san-verification":
			// Keys that etcd has, and no effect of on this port.
			p.warn(slog.LevelWarn, "key of the configuration file has no effect", slog.String("key", at))
		default:
			p.unknown(at, key)
		}
	}
	return nil
}

func (p *parser) unknown(at, key string) {
	if hint := successor(key); hint != "" {
		p.warn(slog.LevelWarn, "key of the configuration file is no longer supported and is ignored", slog.String("key", at), slog.String("use", hint))
		return
	}
	p.warn(slog.LevelWarn, "key of the configuration file is not known and is ignored", slog.String("key", at))
}

func begins(known map[string]*option, prefix string) bool {
	for path := range known {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// set gives an option the value that a file has for it.
func (p *parser) set(o *option, value any) error {
	to := o.value(&p.config)
	text, err := scalar(value)
	if err != nil {
		return err
	}
	if _, number := value.(json.Number); number {
		if _, is := to.(duration); is {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return fmt.Errorf("invalid value %q: a whole number of nanoseconds is expected", text)
			}
			text = time.Duration(n).String()
		}
	}
	if o.name == "initial-cluster-state" {
		p.config.InitialClusterState, p.given[o.name] = text, text // Validate has etcd's text for a word that is none
		return nil
	}
	if err := to.Set(text); err != nil {
		if o.secret() {
			text = "***"
		}
		return fmt.Errorf("invalid value %q: %w", text, err)
	}
	p.given[o.name] = to.String()
	return nil
}

// scalar is a value as a flag would be given it: lists are joined by commas.
func scalar(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			if _, nested := item.([]any); nested {
				return "", errors.New("a plain value is expected, not a list in a list")
			}
			text, err := scalar(item)
			if err != nil {
				return "", err
			}
			items[i] = text
		}
		return strings.Join(items, ","), nil
	}
	return "", fmt.Errorf("a plain value is expected, not %s", kindOf(value))
}

func kindOf(value any) string {
	switch value.(type) {
	case map[string]any:
		return "a block of keys"
	case []any:
		return "a list"
	case nil:
		return "nothing"
	}
	return fmt.Sprintf("%q", fmt.Sprint(value))
}
