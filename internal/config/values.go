package config

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A binding makes the flag.Value that writes one flag into a Config. The
// bindings below without a field check the kind of a value and drop it: flags
// that have nothing to tune here still refuse nonsense.
type binding func(*Config) flag.Value

// parsed is a flag.Value made of a parse function and the place for its result.
type parsed[T any] struct {
	to    *T
	parse func(string) (T, error)
}

func (p parsed[T]) Set(s string) error {
	v, err := p.parse(s)
	if err != nil {
		return err
	}
	*p.to = v
	return nil
}

// String is the value as it was read: equal for equal values, however they are written.
func (p parsed[T]) String() string {
	if p.to == nil { // the flag package asks a value of nobody
		return ""
	}
	return fmt.Sprint(*p.to)
}

// boolean is a parsed bool: the flag package lets it stand without a value.
type boolean struct{ parsed[bool] }

func (boolean) IsBoolFlag() bool { return true }

// duration is a parsed time.Duration, which files give in nanoseconds.
type duration struct{ parsed[time.Duration] }

func bindDuration(field func(*Config) *time.Duration) binding {
	return func(c *Config) flag.Value {
		if field == nil {
			return duration{parsed[time.Duration]{new(time.Duration), parseDuration}}
		}
		return duration{parsed[time.Duration]{field(c), parseDuration}}
	}
}

func bind[T any](parse func(string) (T, error), field func(*Config) *T) binding {
	return func(c *Config) flag.Value {
		if field == nil {
			return parsed[T]{new(T), parse}
		}
		return parsed[T]{field(c), parse}
	}
}

func bindBool(field func(*Config) *bool) binding {
	return func(c *Config) flag.Value {
		return boolean{parsed[bool]{field(c), parseBool}}
	}
}

// Bindings of flags whose value goes nowhere.
var (
	anyInt      = bind(parseInt[int], nil)
	anyUint     = bind(parseUint[uint], nil)
	anyDuration = bindDuration(nil)
)

// anyOf accepts one of the words and drops it: it changes nothing, or there is only one.
func anyOf(words ...string) binding { return bind(oneOf(words...), nil) }

// ignored accepts everything, with or without a value.
func ignored(*Config) flag.Value {
	return boolean{parsed[bool]{new(bool), func(string) (bool, error) { return true, nil }}}
}

// The texts for numbers are those of the flag package.
var (
	errParse = errors.New("parse error")
	errRange = errors.New("value out of range")
)

func numberError(err error) error {
	if errors.Is(err, strconv.ErrRange) {
		return errRange
	}
	return errParse
}

func parseText(s string) (string, error) { return s, nil }

func parseBool(s string) (bool, error) {
	v, err := strconv.ParseBool(s)
	if err != nil {
		return false, errParse
	}
	return v, nil
}

func parseInt[T int | int64](s string) (T, error) {
	v, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		return 0, numberError(err)
	}
	return T(v), nil
}

func parseUint[T uint | uint32](s string) (T, error) {
	v, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, numberError(err)
	}
	if uint64(T(v)) != v {
		return 0, errRange
	}
	return T(v), nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errParse
	}
	return d, nil
}

// parseMillis reads a bare number of milliseconds.
func parseMillis(s string) (time.Duration, error) {
	v, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, numberError(err)
	}
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	if v > most {
		return 0, errRange
	}
	return time.Duration(v) * time.Millisecond, nil
}

// parseNames reads a list that may be empty.
func parseNames(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	return strings.Split(s, ","), nil
}

// parseList reads a comma-separated list, without repeats, in its order.
func parseList(s string) ([]string, error) {
	var list []string
	for _, item := range strings.Split(s, ",") {
		item = strings.TrimSpace(item)
		if item != "" && !slices.Contains(list, item) {
			list = append(list, item)
		}
	}
	return list, nil
}

// parseOptionalURLs is ParseURLs for a list that may be empty.
func parseOptionalURLs(s string) (URLs, error) {
	if s == "" {
		return nil, nil
	}
	return ParseURLs(s)
}

// parseOrigins reads the value of --cors: "*", also when it is empty, or URLs.
func parseOrigins(s string) ([]string, error) {
	if s == "*" || s == "" {
		return []string{"*"}, nil
	}
	urls, err := ParseURLs(s)
	return urls.Strings(), err
}

func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", fmt.Errorf("invalid value %q", s)
		}
		return s, nil
	}
}
