package config

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// others are values that a flag takes and that are not its default, where another
// cannot find one.
var others = map[string]string{
	"listen-peer-urls": "http://127.0.0.1:7", "listen-client-urls": "http://127.0.0.1:7", "listen-client-http-urls": "http://127.0.0.1:7",
	"listen-metrics-urls": "http://127.0.0.1:7", "initial-advertise-peer-urls": "http://h:7", "advertise-client-urls": "http://h:7",
	"initial-cluster": "default=http://h:7", "initial-cluster-state": "existing", "heartbeat-interval": "90",
	"election-timeout": "2000", "backend-bbolt-freelist-type": "array", "discovery-fallback": "exit",
	"feature-gates": "LeaseCheckpoint=true", "v2-deprecation": "gone", "auto-compaction-mode": "revision",
	"auto-compaction-retention": "10m", "cors": "http://o:1", "metrics": "extensive", "logger": "zap", "log-outputs": "stdout",
	"log-level": "debug", "log-format": "console", "log-rotation-config-json": `{"maxsize": 1}`, "peer-cert-allowed-cn": "a,b",
	"cipher-suites": "TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384", "tls-max-version": "TLS1.3",
}

// companions are what a flag cannot do without.
var companions = map[string][][2]string{
	"listen-client-urls":  {{"advertise-client-urls", "http://h:1"}},
	"discovery-token":     {{"discovery-endpoints", "h:1"}},
	"discovery-endpoints": {{"discovery-token", "a-word"}},
	"enable-log-rotation": {{"log-outputs", "/tmp/etcd.log"}},
}

// another is a value of the flag's kind that is not the default.
func another(o *option) string {
	var c Config
	switch o.value(&c).(type) {
	case boolean:
		return strconv.FormatBool(o.def != "true")
	case duration:
		return "17s"
	}
	if _, err := strconv.ParseInt(o.def, 10, 64); err == nil {
		return "17"
	}
	return "another"
}

func sameConfig(a, b Config) bool { return reflect.DeepEqual(a, b) }

// document is a file with the values at their keys, of the kinds that people write:
// numbers and truths bare, durations in nanoseconds.
func document(pairs [][2]string) string {
	tree := map[string]any{}
	for _, pair := range pairs {
		at := tree
		parts := strings.Split(pair[0], ".")
		for _, part := range parts[:len(parts)-1] {
			if at[part] == nil {
				at[part] = map[string]any{}
			}
			at = at[part].(map[string]any)
		}
		at[parts[len(parts)-1]] = written(keys()[pair[0]], pair[1])
	}
	text, err := json.Marshal(tree)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func written(o *option, value string) any {
	var c Config
	if _, is := o.value(&c).(duration); is {
		if d, err := time.ParseDuration(value); err == nil {
			return d.Nanoseconds()
		}
	}
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return n
	}
	if b, err := strconv.ParseBool(value); err == nil {
		return b
	}
	return value
}
