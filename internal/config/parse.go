package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
)

// errShadowed is etcd's text, its doubled parenthesis included.
var errShadowed = errors.New("conflicting environment variable is shadowed by corresponding command-line flag " +
	"(either unset environment variable or disable flag))")

// architectures that need no word from the user.
var architectures = []string{"amd64", "arm64", "ppc64le", "s390x"}

const (
	prefixVariable = "ETCD_"
	archVariable   = "ETCD_UNSUPPORTED_ARCH"
	verVariable    = "ETCD_VERSION"
	fileVariable   = "ETCD_CONFIG_FILE"
)

// Parse reads the arguments, without the program's name, and the environment in
// the form of os.Environ; read, which may be nil, opens the file that they name. Every
// error is an *Error. The warnings are in the order in which they should be logged,
// also when there is an error.
func Parse(args, environ []string, read ReadFile) (Config, []Warning, error) {
	if read == nil {
		read = func(string) ([]byte, error) { return nil, errors.New("files are not read here") }
	}
	p := parser{given: map[string]string{}, environ: environ, read: read}
	err := p.run(args)
	return p.config, p.warnings, err
}

// parser is one run of Parse.
type parser struct {
	config   Config
	given    map[string]string // what a flag, a variable or the file has set, by the flag's name, as its String says it
	environ  []string
	read     ReadFile
	warnings []Warning
}

func (p *parser) run(args []string) error {
	p.config = Default()
	p.config.DataDir, p.config.InitialCluster = "", ""
	if err := p.checkArchitecture(runtime.GOARCH); err != nil {
		return err
	}
	if err := p.flags(args); err != nil {
		return err
	}
	if name := p.fileName(); name != "" {
		if err := p.file(name); err != nil {
			return err
		}
	} else if err := p.variables(); err != nil {
		return err
	}
	p.judge()
	if err := p.checkBootstrap(); err != nil {
		return failure(err)
	}
	if p.gave("listen-client-urls") && !p.gave("advertise-client-urls") {
		p.config.AdvertiseClientURLs = nil
	}
	p.config.derive()
	if err := p.config.Validate(); err != nil {
		return failure(err)
	}
	return nil
}

// checkArchitecture refuses machines that nobody tests on, unless the variable
// names the architecture.
func (p *parser) checkArchitecture(arch string) error {
	if slices.Contains(architectures, arch) || p.lookup(archVariable) == arch {
		return nil
	}
	return failure(fmt.Errorf("%s is not tested: set %s=%s to start all the same", arch, archVariable, arch))
}

// flags reads the command line. The flag package gives etcd's own syntax and
// texts: one dash or two, "-x=v" or "-x v", booleans alone.
func (p *parser) flags(args []string) error {
	set := flag.NewFlagSet("etcd", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for i := range table {
		set.Var(table[i].value(&p.config), table[i].name, "")
	}
	version := set.Bool("version", false, "")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return &Error{Code: 0, Stdout: HelpText(), err: err}
	case err != nil:
		return &Error{Code: 2, Stderr: err.Error() + "\n" + hintFor(err) + usage, err: err}
	}
	if set.NArg() > 0 {
		return failure(fmt.Errorf("%q is not a valid flag", set.Arg(0)))
	}
	if *version {
		return &Error{Code: 0, Stdout: VersionText(), err: errors.New("version asked for")}
	}
	set.Visit(func(f *flag.Flag) { p.given[f.Name] = f.Value.String() })
	return nil
}

// variables reads the environment: a variable fills a flag that is absent, and
// contradicts one that is given.
func (p *parser) variables() error {
	options := map[string]*option{}
	for i := range table {
		options[table[i].variable()] = &table[i]
	}
	used := map[string]string{}
	for _, pair := range p.environ {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || !strings.HasPrefix(name, prefixVariable) || name == archVariable {
			continue
		}
		o := options[name]
		switch {
		case name == verVariable:
			p.warn(slog.LevelWarn, "cannot set special environment variable", slog.String("key", name))
		case o == nil:
			attrs := []slog.Attr{slog.String("environment-variable", name)}
			if hint := successor(strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefixVariable)), "_", "-")); hint != "" {
				attrs = append(attrs, slog.String("use", hint))
			}
			p.warn(slog.LevelWarn, "unrecognized environment variable", attrs...)
		case p.gave(o.name):
			return failure(errShadowed, slog.String("environment-variable", name))
		case value != "":
			to := o.value(&p.config)
			if err := to.Set(value); err != nil {
				return failure(fmt.Errorf("invalid value %q for %s: %w", value, name, err))
			}
			used[o.name] = to.String()
			if o.secret() {
				value = "***"
			}
			p.warn(slog.LevelInfo, "recognized and used environment variable",
				slog.String("variable-name", name), slog.String("variable-value", value))
		}
	}
	maps.Copy(p.given, used)
	return nil
}

// fileName is the configuration file that a flag or a variable names: the flag
// counts where both do, as both name the one thing that is looked at.
func (p *parser) fileName() string {
	if p.config.File != "" {
		return p.config.File
	}
	return p.lookup(fileVariable)
}

// gave says whether a flag, a variable or the file has set a flag.
func (p *parser) gave(name string) bool {
	_, is := p.given[name]
	return is
}

// judge tells of given flags that change nothing and of values that are unwise.
func (p *parser) judge() {
	for i := range table {
		o := &table[i]
		value, given := p.given[o.name]
		switch {
		case given && o.state == obsolete:
			p.warn(slog.LevelWarn, "flag is deprecated and has no effect", slog.String("flag", "--"+o.name))
		case given && o.state == accepted && value != o.standard():
			p.warn(slog.LevelInfo, "flag is accepted and has no effect", slog.String("flag", "--"+o.name),
				slog.String("value", value), slog.String("reason", notes[o.name]))
		}
	}
	p.tellIdle()
	if p.config.QuotaBackendBytes > unwiseQuota {
		p.warn(slog.LevelWarn, "the space quota is larger than is recommended",
			slog.Int64("quota-backend-bytes", p.config.QuotaBackendBytes), slog.Int64("recommended-bytes", unwiseQuota))
	}
	if p.config.MaxRequestBytes > unwiseRequest {
		p.warn(slog.LevelWarn, "the largest request is larger than is recommended",
			slog.Uint64("max-request-bytes", uint64(p.config.MaxRequestBytes)), slog.Int64("recommended-bytes", unwiseRequest))
	}
}

// From here on sizes are warned of (spec/server-ops.md 1.2).
const (
	unwiseQuota   = 8 << 30
	unwiseRequest = 10 << 20
)

// lookup returns the value of a variable; the last one counts.
func (p *parser) lookup(name string) string {
	value := ""
	for _, pair := range p.environ {
		if n, v, _ := strings.Cut(pair, "="); n == name {
			value = v
		}
	}
	return value
}

func (p *parser) warn(level slog.Level, msg string, attrs ...slog.Attr) {
	p.warnings = append(p.warnings, Warning{Level: level, Msg: msg, Attrs: attrs})
}

// failure is a configuration that parses and cannot be used.
func failure(err error, attrs ...slog.Attr) *Error {
	return &Error{Code: 1, Attrs: attrs, err: err}
}
