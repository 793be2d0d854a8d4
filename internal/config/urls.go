package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// URLs is a list of URLs, sorted by their text and without repeats.
type URLs []url.URL

// ParseURLs reads a comma-separated list. Schemes are http, https, unix and
// unixs; http and https need "host:port" and no path.
func ParseURLs(list string) (URLs, error) {
	var urls URLs
	for _, text := range strings.Split(list, ",") {
		text = strings.TrimSpace(text)
		u, err := parseURL(text)
		if err != nil {
			return nil, err
		}
		urls = append(urls, *u)
	}
	slices.SortFunc(urls, func(a, b url.URL) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(urls, func(a, b url.URL) bool { return a.String() == b.String() }), nil
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "http", "https":
		if !hasPort(u.Host) {
			return nil, fmt.Errorf("URL address does not have the form %q: %s", "host:port", text)
		}
		if u.Path != "" {
			return nil, fmt.Errorf("URL must not contain a path: %s", text)
		}
	case "unix", "unixs":
	default:
		return nil, fmt.Errorf("URL scheme must be http, https, unix, or unixs: %s", text)
	}
	return u, nil
}

// hasPort reports whether host has the form "host:port"; an IPv6 host must
// stand in brackets. url.Parse has already checked that a port is a number.
func hasPort(host string) bool {
	i := strings.LastIndexByte(host, ':')
	if i < 0 {
		return false
	}
	name := host[:i]
	if strings.HasPrefix(name, "[") {
		return strings.HasSuffix(name, "]")
	}
	return !strings.ContainsAny(name, ":[]")
}

// Strings returns the URLs as texts, in their order.
func (us URLs) Strings() []string {
	texts := make([]string, len(us))
	for i := range us {
		texts[i] = us[i].String()
	}
	return texts
}

// String joins the URLs with commas.
func (us URLs) String() string { return strings.Join(us.Strings(), ",") }

// checkBind demands hosts that can be bound: addresses or localhost.
func checkBind(us URLs) error {
	for i := range us {
		u := &us[i]
		if isUnix(u) || u.Hostname() == "localhost" {
			continue
		}
		if _, err := netip.ParseAddr(u.Hostname()); err != nil {
			return fmt.Errorf("expected IP in URL for binding (%s)", u)
		}
	}
	return nil
}

// checkAdvertise demands hosts that others could reach.
func checkAdvertise(flag string, us URLs) error {
	for i := range us {
		u := &us[i]
		if !isUnix(u) && u.Hostname() == "" {
			return fmt.Errorf("%s %q must be %q (unexpected empty host (%s))", flag, us.String(), "host:port", u)
		}
	}
	return nil
}

func isUnix(u *url.URL) bool { return u.Scheme == "unix" || u.Scheme == "unixs" }

func isSecure(u *url.URL) bool { return u.Scheme == "https" || u.Scheme == "unixs" }

// Secure says whether one of the URLs is served over TLS.
func (u URLs) Secure() bool {
	return slices.ContainsFunc(u, func(one url.URL) bool { return isSecure(&one) })
}

// Place is where a URL of the list is listened on: a network of package net, and the
// address there. What follows "unix://" is the path of a socket.
func (u URLs) Place(i int) (network, address string) {
	if isUnix(&u[i]) {
		return "unix", u[i].Host + u[i].Path
	}
	return "tcp", u[i].Host
}
