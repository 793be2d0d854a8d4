package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// maxElectionTimeout bounds ElectionTimeout.
const maxElectionTimeout = 50 * time.Second

// errNoAdvertise: whoever chooses where to listen must say how to get there.
var errNoAdvertise = errors.New("--advertise-client-urls is required when --listen-client-urls is set explicitly")

// logLevels are the accepted words of --log-level.
var logLevels = []string{"debug", "info", "warn", "error", "dpanic", "panic", "fatal"}

// Validate checks what no single flag can know. Texts are those of
// spec/server-ops.md 1.5.
func (c *Config) Validate() error {
	checks := []func() error{c.checkLogging, c.checkListeners, c.checkAdvertised, c.checkDiscovery, c.checkTimes, c.checkUpkeep}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkLogging() error {
	switch c.Logger {
	case "zap":
	case "capnslog":
		return errors.New("--logger=capnslog is removed in v3.5")
	default:
		return fmt.Errorf("unknown logger option %q", c.Logger)
	}
	if c.LogFormat != FormatJSON && c.LogFormat != FormatConsole {
		return fmt.Errorf("unknown log format: %q", c.LogFormat)
	}
	if !slices.Contains(logLevels, c.LogLevel) {
		return fmt.Errorf("unrecognized level: %q", c.LogLevel)
	}
	if len(c.LogOutputs) == 0 {
		return errors.New("--log-outputs must name at least one output")
	}
	if len(c.LogOutputs) > 1 && slices.Contains(c.LogOutputs, LogDefault) {
		return fmt.Errorf("multi logoutput for %q is not supported yet", LogDefault)
	}
	if c.EnableLogRotation && (len(c.LogOutputs) != 1 || !isFile(c.LogOutputs[0])) {
		return errors.New("--log-outputs requires a single file path when --log-rotate-config-json is defined")
	}
	return nil
}

// isFile says whether a log output is a path and not one of the words.
func isFile(output string) bool {
	return !slices.Contains([]string{LogDefault, "stderr", "stdout", LogJournal}, output)
}

func (c *Config) checkListeners() error {
	if len(c.ListenPeerURLs) == 0 || len(c.ListenClientURLs) == 0 {
		return errNoURLs
	}
	for _, urls := range []URLs{c.ListenPeerURLs, c.ListenClientURLs, c.ListenClientHTTPURLs, c.ListenMetricsURLs} {
		if err := checkBind(urls); err != nil {
			return err
		}
	}
	if err := c.checkTLS(); err != nil {
		return err
	}
	for i := range c.ListenClientURLs {
		if slices.Contains(c.ListenClientHTTPURLs.Strings(), c.ListenClientURLs[i].String()) {
			return fmt.Errorf("cannot bind both --listen-client-urls and --listen-client-http-urls on the same url %s", &c.ListenClientURLs[i])
		}
	}
	return nil
}

// checkTLS demands certificates for what is to be served over TLS.
func (c *Config) checkTLS() error {
	for _, port := range []struct {
		tls  *TLS
		urls []URLs
		text string
	}{
		{&c.PeerTLS, []URLs{c.ListenPeerURLs}, "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url %s with HTTPS scheme"},
		{&c.ClientTLS, []URLs{c.ListenClientURLs, c.ListenClientHTTPURLs}, "TLS key/cert (--cert-file, --key-file) must be provided for client url %s with HTTPS scheme"},
		{&c.ClientTLS, []URLs{c.ListenMetricsURLs}, "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url %q"},
	} {
		for _, urls := range port.urls {
			for i := range urls {
				if isSecure(&urls[i]) && !port.tls.Auto && (port.tls.CertFile == "" || port.tls.KeyFile == "") {
					return fmt.Errorf(port.text, urls[i].String())
				}
			}
		}
	}
	return nil
}

func (c *Config) checkAdvertised() error {
	if len(c.AdvertisePeerURLs) == 0 {
		return errNoURLs
	}
	if err := checkAdvertise("--initial-advertise-peer-urls", c.AdvertisePeerURLs); err != nil {
		return err
	}
	if err := checkAdvertise("--advertise-client-urls", c.AdvertiseClientURLs); err != nil {
		return err
	}
	if c.InitialClusterState != ClusterNew && c.InitialClusterState != ClusterExisting {
		return fmt.Errorf("unexpected clusterState %q", c.InitialClusterState)
	}
	if len(c.AdvertiseClientURLs) == 0 {
		return errNoAdvertise
	}
	return nil
}

// checkBootstrap refuses two ways to the members of a new cluster at once.
func (p *parser) checkBootstrap() error {
	ways := 0
	for _, given := range []bool{
		p.gave("initial-cluster") && p.config.InitialCluster != "",
		p.config.Discovery.Token != "" || len(p.config.Discovery.Endpoints) > 0,
		p.config.Discovery.SRV != "",
	} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		return errors.New(`multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`)
	}
	return nil
}

func (c *Config) checkDiscovery() error {
	d := &c.Discovery
	if (d.Token != "") != (len(d.Endpoints) > 0) {
		return errors.New("both --discovery-token and --discovery-endpoints must be set")
	}
	if slices.Contains(d.Endpoints, "") {
		return errors.New("--discovery-endpoints must not contain empty endpoints")
	}
	return nil
}

// checkUpkeep looks at what a member does by itself now and then.
func (c *Config) checkUpkeep() error {
	if _, _, err := c.Compaction(); err != nil {
		return err
	}
	if c.CompactHashCheckTime <= 0 {
		return fmt.Errorf("--compact-hash-check-time must be >0 (set to %v)", c.CompactHashCheckTime)
	}
	if c.Metrics != MetricsBasic && c.Metrics != MetricsExtensive {
		return fmt.Errorf("unknown --metrics %q (must be %s or %s)", c.Metrics, MetricsBasic, MetricsExtensive)
	}
	if c.Tracing.PerMillion < 0 || c.Tracing.PerMillion > million {
		return fmt.Errorf("distributed tracing sampling rate must be between 0 and %d (set to %d)", million, c.Tracing.PerMillion)
	}
	return nil
}

const million = 1_000_000

// Compaction reads --auto-compaction-mode and --auto-compaction-retention: how long
// versions are kept, or how many revisions are; both 0 when compaction is not
// automatic. A bare number of the periodic mode is hours.
func (c *Config) Compaction() (period time.Duration, revisions int64, err error) {
	number, wrong := strconv.ParseInt(c.AutoCompactionRetention, 10, 64)
	switch c.AutoCompactionMode {
	case CompactPeriodic:
		if wrong != nil {
			if period, err = time.ParseDuration(c.AutoCompactionRetention); err != nil {
				return 0, 0, fmt.Errorf("error parsing CompactionRetention: %w", err)
			}
		} else if number > int64(maxRetention/time.Hour) || number < 0 {
			return 0, 0, fmt.Errorf("error parsing CompactionRetention: %d hours are out of range", number)
		} else {
			period = time.Duration(number) * time.Hour
		}
		if period < 0 {
			return 0, 0, fmt.Errorf("error parsing CompactionRetention: %v is below zero", period)
		}
		return period, 0, nil
	case CompactRevision:
		if wrong != nil || number < 0 {
			return 0, 0, fmt.Errorf("error parsing CompactionRetention: %q is no number of revisions", c.AutoCompactionRetention)
		}
		return 0, number, nil
	}
	return 0, 0, fmt.Errorf("unknown auto-compaction-mode %q", c.AutoCompactionMode)
}

// maxRetention is the longest time there is.
const maxRetention = time.Duration(1<<63 - 1)

func (c *Config) checkTimes() error {
	beat, election := c.HeartbeatInterval.Milliseconds(), c.ElectionTimeout.Milliseconds()
	switch {
	case beat <= 0:
		return fmt.Errorf("--heartbeat-interval must be >0 (set to %dms)", beat)
	case election <= 0:
		return fmt.Errorf("--election-timeout must be >0 (set to %dms)", election)
	case election/5 < beat:
		return fmt.Errorf("--election-timeout[%vms] should be at least as 5 times as --heartbeat-interval[%vms]", election, beat)
	case c.ElectionTimeout > maxElectionTimeout:
		return fmt.Errorf("--election-timeout[%vms] is too long, and should be set less than %vms", election, maxElectionTimeout.Milliseconds())
	}
	return nil
}
