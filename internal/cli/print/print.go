// Package print writes the answers of a cluster the way that people and scripts
// read them: simple, fields, json, protobuf and table (spec/etcdctl.md
// section 3). Each kind of answer is described once, as an answer value; one
// function chooses the format.
package print

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/tw"
	"google.golang.org/protobuf/proto"
)

// Format is one of the words of --write-out.
type Format string

// The formats.
const (
	Simple   Format = "simple"
	Fields   Format = "fields"
	JSON     Format = "json"
	Protobuf Format = "protobuf"
	Table    Format = "table"
)

// ErrFormat marks a format that does not exist, or that an answer does not
// have.
var ErrFormat = errors.New("not supported as output format")

// formatError is an ErrFormat with its text.
type formatError string

func (e formatError) Error() string { return string(e) }

func (e formatError) Is(target error) bool { return target == ErrFormat }

// Printer writes answers in one format, each in one piece even when several are
// written at the same time.
type Printer struct {
	writing         sync.Mutex
	out, complaints io.Writer
	format          Format
	hex             bool
}

// New returns a printer for answers to out; what simple says of endpoints that
// are not well goes to complaints. With hex, keys and values (simple) and ids
// (fields, json of members) are written in hexadecimal. An unknown format is an
// ErrFormat.
func New(out, complaints io.Writer, format string, hex bool) (*Printer, error) {
	switch f := Format(format); f {
	case Simple, Fields, JSON, Protobuf, Table:
		return &Printer{out: out, complaints: complaints, format: f, hex: hex}, nil
	}
	return nil, formatError("unsupported output format")
}

// Format returns the printer's format.
func (p *Printer) Format() Format { return p.format }

// answer is how one answer looks in each format; what is nil does not exist.
type answer struct {
	before         string // what stands before it, in every format
	simple, fields func(*lines)
	json           any
	protobuf       proto.Message
	table          *grid
}

// grid is a table: its headings, and its rows.
type grid struct {
	head []string
	rows [][]string
}

// write puts the answer out in the printer's format.
func (p *Printer) write(a answer) error {
	l := lines{hex: p.hex, buf: []byte(a.before)}
	switch {
	case p.format == Simple && a.simple != nil:
		a.simple(&l)
	case p.format == Fields && a.fields != nil:
		a.fields(&l)
	case p.format == JSON && a.json != nil:
		data, err := json.Marshal(a.json)
		if err != nil {
			return err
		}
		l.buf = append(append(l.buf, data...), '\n')
	case p.format == Protobuf && a.protobuf != nil:
		data, err := proto.Marshal(a.protobuf)
		if err != nil {
			return err
		}
		l.buf = append(l.buf, data...)
	case p.format == Table && a.table != nil:
		if err := l.grid(a.table); err != nil {
			return err
		}
	default:
		return formatError(fmt.Sprintf("%s not supported as output format", p.format))
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	if _, err := p.out.Write(l.buf); err != nil {
		return err
	}
	_, err := p.complaints.Write(l.complaints)
	return err
}

// grid draws a table. It goes through the buffer: the library does not report a
// failed write.
func (l *lines) grid(g *grid) error {
	var b bytes.Buffer
	t := tablewriter.NewTable(&b, tablewriter.WithConfig(
		tablewriter.NewConfigBuilder().WithRowAlignment(tw.AlignRight).WithRowAutoWrap(tw.WrapNone).WithHeaderAutoWrap(tw.WrapNone).Build()))
	t.Header(g.head)
	if err := t.Bulk(g.rows); err != nil {
		return err
	}
	if err := t.Render(); err != nil {
		return err
	}
	l.buf = b.Bytes()
	return nil
}
