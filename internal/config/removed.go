package config

import "strings"

// removed are flags that etcd had before 3.7 and that 3.7, as this program, refuses,
// with what has taken their place; empty: nothing. Most of them were called
// experimental- until 3.6 and have lost only that (spec/server-ops.md 1.3).
var removed = map[string]string{
	"experimental-initial-corrupt-check":                "--feature-gates=InitialCorruptCheck=true",
	"experimental-compact-hash-check-enabled":           "--feature-gates=CompactHashCheck=true",
	"experimental-stop-grpc-service-on-defrag":          "--feature-gates=StopGRPCServiceOnDefrag=true",
	"experimental-txn-mode-write-with-shared-buffer":    "--feature-gates=TxnModeWriteWithSharedBuffer=true",
	"experimental-enable-lease-checkpoint":              "--feature-gates=LeaseCheckpoint=true",
	"experimental-enable-lease-checkpoint-persist":      "--feature-gates=LeaseCheckpoint=true",
	"experimental-set-member-localaddr":                 "--feature-gates=SetMemberLocalAddr=true",
	"experimental-corrupt-check-time":                   "--corrupt-check-time",
	"experimental-compact-hash-check-time":              "--compact-hash-check-time",
	"experimental-compaction-batch-limit":               "--compaction-batch-limit",
	"experimental-compaction-sleep-interval":            "--compaction-sleep-interval",
	"experimental-watch-progress-notify-interval":       "--watch-progress-notify-interval",
	"experimental-downgrade-check-time":                 "--downgrade-check-time",
	"experimental-warning-apply-duration":               "--warning-apply-duration",
	"experimental-warning-unary-request-duration":       "--warning-unary-request-duration",
	"experimental-bootstrap-defrag-threshold-megabytes": "--bootstrap-defrag-threshold-megabytes",
	"experimental-memory-mlock":                         "--memory-mlock",
	"experimental-snapshot-catchup-entries":             "--snapshot-catchup-entries",
	"experimental-max-learners":                         "--max-learners",
	"experimental-peer-skip-client-san-verification":    "--peer-skip-client-san-verification",
	"experimental-backend-bbolt-freelist-type":          "--backend-bbolt-freelist-type",
	"experimental-enable-distributed-tracing":           "--enable-distributed-tracing",
	"experimental-distributed-tracing-address":          "--distributed-tracing-address",
	"experimental-distributed-tracing-service-name":     "--distributed-tracing-service-name",
	"experimental-distributed-tracing-instance-id":      "--distributed-tracing-instance-id",
	"experimental-distributed-tracing-sampling-rate":    "--distributed-tracing-sampling-rate",
	"discovery":                       "--discovery-token and --discovery-endpoints",
	"discovery-proxy":                 "--discovery-endpoints",
	"debug":                           "--log-level=debug",
	"log-output":                      "--log-outputs",
	"log-package-levels":              "--log-level",
	"proxy":                           "etcd gateway",
	"proxy-failure-wait":              "etcd gateway --retry-delay",
	"next-cluster-version-compatible": "nothing: leave it out",
	"experimental-enable-v2v3":        "nothing: leave it out",
	"proxy-refresh-interval":          "nothing: leave it out",
	"proxy-dial-timeout":              "nothing: leave it out",
	"proxy-write-timeout":             "nothing: leave it out",
	"proxy-read-timeout":              "nothing: leave it out",
}

// successor says what to use instead of a flag of an older etcd; empty if the name
// was never one.
func successor(name string) string { return removed[name] }

// hintFor is a line for whoever gives a flag of an older etcd; empty for others.
func hintFor(err error) string {
	name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !ok || successor(name) == "" {
		return ""
	}
	return "An older etcd had it. Use instead: " + successor(name) + "\n"
}
