package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/tw"
)

// Format of what is printed.
type Format int

const (
	// Text is a table for a terminal.
	Text Format = iota
	// Markdown is a table for a document.
	Markdown
	// JSON is one object per table, each on a line of its own, with times in
	// nanoseconds and sizes in bytes.
	JSON
)

// table is what one scenario found: rows for readers, data for programs.
type table struct {
	title  string
	about  string
	header []string
	rows   [][]string
	notes  []string
	data   any
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(out io.Writer, f Format) error {
	switch f {
	case JSON:
		return json.NewEncoder(out).Encode(struct {
			Title string `json:"title"`
			About string `json:"about"`
			Data  any    `json:"data"`
		}{t.title, t.about, t.data})
	case Markdown:
		return t.markdown(out)
	}
	fmt.Fprintf(out, "%s: %s\n", t.title, t.about)
	w := tablewriter.NewTable(out, tablewriter.WithHeaderAutoFormat(tw.Off))
	w.Header(t.header)
	for _, row := range t.rows {
		if err := w.Append(row); err != nil {
			return err
		}
	}
	if err := w.Render(); err != nil {
		return err
	}
	for _, n := range t.notes {
		fmt.Fprintln(out, n)
	}
	return nil
}

func (t *table) markdown(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n%s\n\n", t.title, t.about)
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.header)
	fmt.Fprintln(&b, strings.Repeat("|---", len(t.header))+"|")
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, c := range row {
			if cells[i] = strings.ReplaceAll(c, "|", "\\|"); row[1] == ratioRow && c != "" {
				cells[i] = "**" + cells[i] + "**"
			}
		}
		line(cells)
	}
	b.WriteByte('\n')
	for _, n := range t.notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	if len(t.notes) > 0 {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// ratioRow is the second cell of a row of ratios, where the others name a server.
const ratioRow = "ratio"

// figure is a number that is shown with its unit and compared by its ratio.
type figure struct {
	value float64
	unit  func(float64) string
}

func (f figure) String() string {
	if f.value == 0 {
		return "-"
	}
	return f.unit(f.value)
}

// over is the ratio of a to b as a table shows it.
func over(a, b float64) string {
	if a == 0 || b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func ratios(a, b []figure) []string {
	cells := make([]string, len(a))
	for i := range a {
		cells[i] = over(a[i].value, b[i].value)
	}
	return cells
}

func cells(figures []figure) []string {
	out := make([]string, len(figures))
	for i, f := range figures {
		out[i] = f.String()
	}
	return out
}

func number(v float64) figure { return figure{v, digits} }

func span(d time.Duration) figure { return figure{float64(d), duration} }

func size(bytes int64) figure { return figure{float64(bytes), mebibytes} }

// digits keeps three significant ones, and all before the point.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func duration(ns float64) string {
	switch d := time.Duration(ns); {
	case d < 10*time.Microsecond:
		return digits(ns/1e3) + " us"
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f us", ns/1e3)
	case d < time.Second:
		return digits(ns/1e6) + " ms"
	}
	return digits(ns/1e9) + " s"
}

func mebibytes(bytes float64) string { return digits(bytes/(1<<20)) + " MiB" }
