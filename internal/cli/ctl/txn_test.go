package ctl

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
)

func TestCompares(t *testing.T) {
	for _, tc := range []struct {
		line   string
		target pb.Compare_CompareTarget
		result pb.Compare_CompareResult
		key    string
		value  any
	}{
		{`ver("k") = "1"`, pb.Compare_VERSION, pb.Compare_EQUAL, "k", int64(1)},
		{`version("k") > "-1"`, pb.Compare_VERSION, pb.Compare_GREATER, "k", int64(-1)},
		{`c("k") < "9223372036854775807"`, pb.Compare_CREATE, pb.Compare_LESS, "k", int64(9223372036854775807)},
		{`create("k") != "0"`, pb.Compare_CREATE, pb.Compare_NOT_EQUAL, "k", int64(0)},
		{`m("k") = "+2"`, pb.Compare_MOD, pb.Compare_EQUAL, "k", int64(2)},
		{`mod("a b") = "2"`, pb.Compare_MOD, pb.Compare_EQUAL, "a b", int64(2)},
		{`lease("k") = "16"`, pb.Compare_LEASE, pb.Compare_EQUAL, "k", int64(16)},
		{`val("k") = ""`, pb.Compare_VALUE, pb.Compare_EQUAL, "k", ""},
		{`value("\x00\"(\u00e9") = "a) = \"b\"\n"`, pb.Compare_VALUE, pb.Compare_EQUAL, "\x00\"(é", "a) = \"b\"\n"},
		{"val( `k\\`)\t =\t `\"` left alone", pb.Compare_VALUE, pb.Compare_EQUAL, `k\`, `"`},
		{`val("k") = "v"left alone`, pb.Compare_VALUE, pb.Compare_EQUAL, "k", "v"},
	} {
		cmp, err := parseCompare(tc.line)
		if err != nil {
			t.Errorf("%s: %v", tc.line, err)
			continue
		}
		c := cmp.GetCompare()
		if c.Target != tc.target || c.Result != tc.result || string(c.Key) != tc.key || compared(c) != tc.value || len(c.RangeEnd) > 0 {
			t.Errorf("%s: %v", tc.line, c)
		}
	}
}

// compared is the value that a comparison is with.
func compared(c *pb.Compare) any {
	switch c.Target {
	case pb.Compare_VERSION:
		return c.GetVersion()
	case pb.Compare_CREATE:
		return c.GetCreateRevision()
	case pb.Compare_MOD:
		return c.GetModRevision()
	case pb.Compare_LEASE:
		return c.GetLease()
	}
	return string(c.GetValue())
}

func TestBadCompares(t *testing.T) {
	for line, want := range map[string]string{
		`foo`:                            `malformed comparison: foo`,
		`foo("k") = "1"`:                 `malformed comparison: foo("k") = "1" (unknown target foo)`,
		`val ("k") = "1"`:                `malformed comparison: val ("k") = "1" (unknown target val )`,
		`VAL("k") = "1"`:                 `malformed comparison: VAL("k") = "1" (unknown target VAL)`,
		`foo("k") = 1`:                   `malformed comparison: foo("k") = 1; got foo("k") = ""`,
		`ver("k") = 1`:                   `malformed comparison: ver("k") = 1; got ver("k") = ""`,
		`val(k) = "1"`:                   `malformed comparison: val(k) = "1"; got val("")  ""`,
		`val('k') = "1"`:                 `malformed comparison: val('k') = "1"; got val("")  ""`,
		`val("\z") = "1"`:                `malformed comparison: val("\z") = "1"; got val("")  ""`,
		`val("k`:                         `malformed comparison: val("k; got val("")  ""`,
		`val("k"`:                        `malformed comparison: val("k"; got val("k")  ""`,
		`val("k" ) = "1"`:                `malformed comparison: val("k" ) = "1"; got val("k")  ""`,
		`val("k")="1"`:                   `malformed comparison: val("k")="1"; got val("k")  ""`,
		`val("k") ="1"`:                  `malformed comparison: val("k") ="1"; got val("k") ="1" ""`,
		`val("k") =`:                     `malformed comparison: val("k") =; got val("k") = ""`,
		`val("k") = "`:                   `malformed comparison: val("k") = "; got val("k") = ""`,
		`val("k") == "1"`:                `malformed comparison: val("k") == "1" (unknown operator ==)`,
		`lease("k") ~ "1"`:               `malformed comparison: lease("k") ~ "1" (unknown operator ~)`,
		`ver("k") = "x"`:                 `invalid txn compare request: ver("k") = "x"`,
		`mod("k") = "0x1"`:               `invalid txn compare request: mod("k") = "0x1"`,
		`lease("k") = "beef"`:            `invalid txn compare request: lease("k") = "beef"`,
		`c("k") = "9223372036854775808"`: `invalid txn compare request: c("k") = "9223372036854775808"`,
	} {
		if _, err := parseCompare(line); err == nil || err.Error() != want || exit.Code(err) != exit.CodeBadInput {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}

func TestWords(t *testing.T) {
	for line, want := range map[string][]string{
		``:                     nil,
		" \t ":                 nil,
		`put k v`:              {"put", "k", "v"},
		` put  k	v `:           {"put", "k", "v"},
		`put k "a b"`:          {"put", "k", "a b"},
		`put k ""`:             {"put", "k", ""},
		`put k "\"\\\n\x41é"`:  {"put", "k", "\"\\\nAé"},
		`put k 'a "b" \n'`:     {"put", "k", `a "b" \n`},
		`put k ''`:             {"put", "k", ""},
		`put k a"b c"d`:        {"put", "k", `a"b`, `c"d`},
		`put k it's`:           {"put", "k", "it's"},
		`put "k"v`:             {"put", "k", "v"},
		`put 'k'"v"`:           {"put", "k", "v"},
		`put k "never closed`:  {"put", "k", "never", "closed"},
		`put k 'never closed`:  {"put", "k", "never", "closed"},
		`put k "`:              {"put", "k"},
		`put k b\ c`:           {"put", "k", `b\`, "c"},
		`put k "a\"`:           {"put", "k", `a\"`},
		"put k a\vb\u00a0c":    {"put", "k", "a\vb\u00a0c"},
		`get --prefix "" -- -`: {"get", "--prefix", "", "--", "-"},
	} {
		if got, err := splitWords(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", line, got, err, want)
		}
	}
	if got, err := splitWords(`put k "\z"`); err == nil {
		t.Errorf("%q", got)
	}
}

func TestOps(t *testing.T) {
	lease := clientv3.WithLease(0xbeef)
	unsorted := clientv3.WithSort(clientv3.SortByKey, clientv3.SortNone)
	for line, want := range map[string]clientv3.Op{
		`put k v`:                                clientv3.OpPut("k", "v"),
		`put k "a b" left alone`:                 clientv3.OpPut("k", "a b"),
		`put --lease=beef k v --prev-kv`:         clientv3.OpPut("k", "v", lease, clientv3.WithPrevKV()),
		`put --ignore-value --ignore-lease "k"`:  clientv3.OpPut("k", "", clientv3.WithIgnoreValue(), clientv3.WithIgnoreLease()),
		`put -- --key --value`:                   clientv3.OpPut("--key", "--value"),
		`get k`:                                  clientv3.OpGet("k", unsorted),
		`get a c --limit 3 --rev 2 -- left`:      clientv3.OpGet("a", unsorted, clientv3.WithRange("c"), clientv3.WithLimit(3), clientv3.WithRev(2)),
		`get a/ --prefix --consistency s`:        clientv3.OpGet("a/", unsorted, clientv3.WithPrefix(), clientv3.WithSerializable()),
		`get "" --prefix --keys-only`:            clientv3.OpGet("\x00", unsorted, clientv3.WithFromKey(), clientv3.WithKeysOnly()),
		`get k --count-only --stream`:            clientv3.OpGet("k", unsorted, clientv3.WithCountOnly()),
		`get "\xff\xff" --prefix`:                clientv3.OpGet("\xff\xff", unsorted, clientv3.WithPrefix()),
		`get k --sort-by=modify --order=descend`: clientv3.OpGet("k", clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend)),
		`get k --min-mod-rev=2 --max-create-rev=3 --print-value-only`: clientv3.OpGet("k", unsorted,
			clientv3.WithMinModRev(2), clientv3.WithMaxCreateRev(3)),
		`del k --prev-kv`:      clientv3.OpDelete("k", clientv3.WithPrevKV()),
		`del a c`:              clientv3.OpDelete("a", clientv3.WithRange("c")),
		`del a c --range`:      clientv3.OpDelete("a", clientv3.WithRange("c")),
		`del --from-key 'a b'`: clientv3.OpDelete("a b", clientv3.WithFromKey()),
	} {
		got, err := parseOp(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\n%+v\n%+v", line, err, got, want)
		}
	}
}

func TestBadOps(t *testing.T) {
	for line, want := range map[string]struct {
		code int
		text string
	}{
		`foo bar`:                   {exit.CodeBadInput, `invalid txn request: foo bar`},
		`PUT k v`:                   {exit.CodeBadInput, `invalid txn request: PUT k v`},
		`"" k v`:                    {exit.CodeBadInput, `invalid txn request: "" k v`},
		`put`:                       {exit.CodeBadInput, `invalid txn compare request: put`},
		`put "\z"`:                  {exit.CodeBadInput, `invalid txn request: put "\z"`},
		`put k`:                     {exit.CodeBadArgs, `put command needs 1 argument and input from stdin or 2 arguments`},
		`put --prev-kv`:             {exit.CodeBadArgs, `put command needs 1 argument and input from stdin or 2 arguments`},
		`put k v --ignore-value`:    {exit.CodeBadArgs, `put command needs only 1 argument when 'ignore-value' is set`},
		`put k v --lease=zz`:        {exit.CodeBadArgs, `bad lease ID (strconv.ParseInt: parsing "zz": invalid syntax), expecting ID in Hex`},
		`get k --bad`:               {exit.CodeBadInput, `invalid txn request: get k --bad`},
		`get k -w json`:             {exit.CodeBadInput, `invalid txn request: get k -w json`},
		`get k --help`:              {exit.CodeBadInput, `invalid txn request: get k --help`},
		`get k --limit=many`:        {exit.CodeBadInput, `invalid txn request: get k --limit=many`},
		`get k --prefix --from-key`: {exit.CodeBadArgs, "`--prefix` and `--from-key` cannot be set at the same time, choose one"},
		`get k --order=up`:          {exit.CodeBadFeature, `bad sort order up`},
		`del a b c`:                 {exit.CodeBadArgs, `del command needs one argument as key and an optional argument as range_end`},
	} {
		if _, err := parseOp(line); err == nil || err.Error() != want.text || exit.Code(err) != want.code {
			t.Errorf("%s: %v, want %v", line, err, want)
		}
	}
}

func TestTxnPrompts(t *testing.T) {
	var prompts bytes.Buffer
	_, err := readTxn(bufio.NewReader(strings.NewReader("\nput k\n\n")), &prompts)
	if exit.Code(err) != exit.CodeBadArgs || prompts.String() != "compares:\nsuccess requests (get, put, del):\n" {
		t.Errorf("%v %q", err, prompts.String())
	}
	got, err := readTxn(bufio.NewReader(strings.NewReader(" \nput k v\n\t\nget k\ndel l\r\n\r\nleft")), &prompts)
	if err != nil || len(got.compares) != 0 || len(got.success) != 1 || len(got.failure) != 2 {
		t.Errorf("%+v %v", got, err)
	}
	for _, text := range []string{"", "\n", "\n\n", "\n\nput k v", "val(\"k\") = \"v\""} {
		if _, err := readTxn(bufio.NewReader(strings.NewReader(text)), &prompts); !errors.Is(err, io.EOF) || exit.Code(err) != exit.CodeBadInput {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// wordPattern says what splitWords does in another way.
var wordPattern = regexp.MustCompile(`"(\\.|[^\\"])*"|'[^']*'|[^\s"']\S*`)

// FuzzTxn reads anything as a transaction: no input does harm, each refusal has
// an exit code of its own, and words are where another description of them says.
func FuzzTxn(f *testing.F) {
	f.Add("mod(\"k\") > \"0\"\n\nput k \"a b\" --prev-kv\nget '' --prefix\n\ndel k\n\n")
	f.Add("val(\"k\") = \"v\"\nlease(\"k\") != \"7\"\n\n\n\n")
	f.Add("\nput \"\\z\" 'x\n\n\n")
	f.Add("ver(`\xff`) == \"\"\n\nget --limit\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := readTxn(bufio.NewReader(strings.NewReader(text)), io.Discard)
		if code := exit.Code(err); err != nil && code != exit.CodeBadInput && code != exit.CodeBadArgs && code != exit.CodeBadFeature {
			t.Fatalf("%v exits with %d", err, code)
		}
		for line := range strings.SplitSeq(text, "\n") {
			checkWords(t, line)
		}
	})
}

func checkWords(t *testing.T, line string) {
	got, err := splitWords(line)
	want := wordPattern.FindAllString(line, -1)
	for i, w := range want {
		switch w[0] {
		case '\'':
			want[i] = w[1 : len(w)-1]
		case '"':
			plain, bad := strconv.Unquote(w)
			if bad != nil {
				if err == nil {
					t.Fatalf("%q: %q is accepted", line, w)
				}
				return
			}
			want[i] = plain
		}
	}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%q: %q, %v; want %q", line, got, err, want)
	}
}

// FuzzQuoted says anything in quotes and hears it again.
func FuzzQuoted(f *testing.F) {
	f.Add("k", "v")
	f.Add("\xff\x00\n", `"'\`)
	f.Fuzz(func(t *testing.T, key, value string) {
		cmp, err := parseCompare(fmt.Sprintf("val(%q) != %q", key, value))
		if c := cmp.GetCompare(); err != nil || string(c.Key) != key || string(c.GetValue()) != value {
			t.Fatalf("%v %v", c, err)
		}
		op, err := parseOp(fmt.Sprintf("put -- %q %q", key, value))
		if err != nil || string(op.KeyBytes()) != key || string(op.ValueBytes()) != value {
			t.Fatalf("%+v %v", op, err)
		}
	})
}
