package ctl

import (
	"io"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
)

// blanks separate words; etcd knows these only.
const blanks = " \t\n\f\r"

// comparison is a line of the first part, taken apart but not understood:
//
//	target("key") op "value"
type comparison struct {
	target, key, op, value string
	whole                  bool // nothing is missing
}

// splitCompare takes a comparison apart as far as it can. The key follows the
// parenthesis, the operator stands between blanks; what follows the value is
// left alone. ok is false when there is no parenthesis.
func splitCompare(line string) (c comparison, ok bool) {
	target, rest, ok := strings.Cut(line, "(")
	if !ok {
		return c, false
	}
	c.target = target
	key, rest, ok := cutQuoted(rest)
	if !ok {
		return c, true
	}
	c.key = key
	rest, ok = strings.CutPrefix(rest, ")")
	after := strings.TrimLeft(rest, blanks)
	if !ok || len(after) == len(rest) {
		return c, true
	}
	end := strings.IndexAny(after, blanks)
	if end < 0 {
		end = len(after)
	}
	c.op = after[:end]
	c.value, _, c.whole = cutQuoted(after[end:])
	return c, true
}

// cutQuoted splits a string in Go's quotes off a text.
func cutQuoted(text string) (value, rest string, ok bool) {
	text = strings.TrimLeft(text, blanks)
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil || quoted[0] == '\'' {
		return "", text, false
	}
	value, err = strconv.Unquote(quoted)
	return value, text[len(quoted):], err == nil
}

// parseCompare reads a line of the first part.
func parseCompare(line string) (cmp clientv3.Cmp, err error) {
	c, ok := splitCompare(line)
	switch {
	case !ok:
		return cmp, exit.BadInput("malformed comparison: %s", line)
	case !c.whole:
		return cmp, exit.BadInput("malformed comparison: %s; got %s(%q) %s %q", line, c.target, c.key, c.op, c.value)
	}
	target, known := compareTargets[c.target]
	if !known {
		return cmp, exit.BadInput("malformed comparison: %s (unknown target %s)", line, c.target)
	}
	// The client's own Compare panics on any other operator.
	if !compareOps[c.op] {
		return cmp, exit.BadInput("malformed comparison: %s (unknown operator %s)", line, c.op)
	}
	if target == nil {
		return clientv3.Compare(clientv3.Value(c.key), c.op, c.value), nil
	}
	number, err := strconv.ParseInt(c.value, 10, 64)
	if err != nil {
		return cmp, exit.BadInput("invalid txn compare request: %s", line)
	}
	return clientv3.Compare(target(c.key), c.op, number), nil
}

// compareTargets are what is compared, by its names. All are numbers but the
// value, which is nil here.
var compareTargets = map[string]func(key string) clientv3.Cmp{
	"ver": clientv3.Version, "version": clientv3.Version,
	"c": clientv3.CreateRevision, "create": clientv3.CreateRevision,
	"m": clientv3.ModRevision, "mod": clientv3.ModRevision,
	"lease": clientv3.LeaseValue,
	"val":   nil, "value": nil,
}

var compareOps = map[string]bool{"=": true, "!=": true, ">": true, "<": true}

// parseOp reads a line of the second or third part: a command and its own
// arguments and flags. Flags that are about output only have no effect.
func parseOp(line string) (op clientv3.Op, err error) {
	words, err := splitWords(line)
	if err != nil {
		return op, exit.BadInput("invalid txn request: %s", line)
	}
	if len(words) < 2 {
		return op, exit.BadInput("invalid txn compare request: %s", line)
	}
	fs := pflag.NewFlagSet(words[0], pflag.ContinueOnError)
	fs.Usage = func() {}
	var build func(args []string) (clientv3.Op, error)
	switch words[0] {
	case "put":
		build = putOp(fs)
	case "get":
		build = getOp(fs)
	case "del":
		build = delOp(fs)
	}
	if build == nil || fs.Parse(words[1:]) != nil {
		return op, exit.BadInput("invalid txn request: %s", line)
	}
	return build(fs.Args())
}

func putOp(fs *pflag.FlagSet) func([]string) (clientv3.Op, error) {
	var f putFlags
	f.register(fs)
	return func(args []string) (op clientv3.Op, err error) {
		// Standard input is the transaction, and no value's.
		key, value, opts, err := f.request(args, eof{})
		if err != nil {
			return op, err
		}
		return clientv3.OpPut(key, value, opts...), nil
	}
}

func getOp(fs *pflag.FlagSet) func([]string) (clientv3.Op, error) {
	var f getFlags
	f.register(fs)
	return func(args []string) (op clientv3.Op, err error) {
		key, opts, err := f.request(args)
		if err != nil {
			return op, err
		}
		return clientv3.OpGet(key, opts...), nil
	}
}

func delOp(fs *pflag.FlagSet) func([]string) (clientv3.Op, error) {
	var f delFlags
	f.register(fs)
	return func(args []string) (op clientv3.Op, err error) {
		key, opts, err := f.request(args)
		if err != nil {
			return op, err
		}
		return clientv3.OpDelete(key, opts...), nil
	}
}

// eof is an input that has nothing.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// splitWords splits a line at blanks. "..." is a word with Go's escapes, '...'
// one as it stands, and both end a word where they end, blank or not. A quote
// within a word is part of it; one that is never closed is passed over.
func splitWords(line string) (words []string, err error) {
	for line = strings.TrimLeft(line, blanks); line != ""; line = strings.TrimLeft(line, blanks) {
		end := wordEnd(line)
		word := line[:end]
		line = line[end:]
		switch {
		case word == `"` || word == `'`: // never closed
			continue
		case word[0] == '\'':
			word = word[1 : end-1]
		case word[0] == '"':
			if word, err = strconv.Unquote(word); err != nil {
				return nil, err
			}
		}
		words = append(words, word)
	}
	return words, nil
}

// wordEnd is the length of the word that a line begins with, quotes included;
// of an open quote it is 1.
func wordEnd(line string) int {
	switch line[0] {
	case '\'':
		return max(1, strings.IndexByte(line[1:], '\'')+2)
	case '"':
		for i := 1; i < len(line); i++ {
			switch line[i] {
			case '\\':
				i++
			case '"':
				return i + 1
			}
		}
		return 1
	}
	if end := strings.IndexAny(line, blanks); end >= 0 {
		return end
	}
	return len(line)
}
