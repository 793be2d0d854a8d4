package bench

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// Row is one workload with one set of options, on each server.
type Row struct {
	Workload string   `json:"workload"`
	Options  Options  `json:"options"`
	Servers  []Result `json:"servers"`
	// Ratios of the first server's figures to the second's, by the names that the
	// figures have in a Result; those that are unknown are left out.
	Ratios map[string]float64 `json:"ratios,omitempty"`
}

// plan is what a row will measure.
type plan struct {
	work workload
	// other, when it has a name, is what the second server is asked instead.
	other workload
	opts  Options
}

func (p plan) workOf(server int) workload {
	if server == 1 && p.other.name != "" {
		return p.other
	}
	return p.work
}

// compare measures a plan on all servers in turns.
func compare(ctx context.Context, servers []Server, p plan, t turns, progress io.Writer) (Row, error) {
	if err := p.opts.check(p.work); err != nil {
		return Row{}, err
	}
	for i, s := range servers {
		if p.workOf(i).filled {
			if err := (filler{server: s, space: p.opts.Space, seed: p.opts.Seed, progress: progress}).ensure(ctx); err != nil {
				return Row{}, err
			}
		}
	}
	all, err := take(ctx, t, servers, func(i, round int) (Result, error) {
		o := p.opts
		o.Seed += uint64(round)
		r, err := once(ctx, servers[i], p.workOf(i), o)
		if i == 1 && p.other.name != "" {
			r.Server += " (" + p.other.name + ")"
		}
		return r, err
	})
	if err != nil {
		return Row{}, err
	}
	row := Row{Workload: p.work.title(p.opts.Limit), Options: p.opts}
	for _, rounds := range all {
		row.Servers = append(row.Servers, summary(rounds))
	}
	if len(row.Servers) == 2 {
		row.Ratios = row.Servers[0].over(row.Servers[1])
	}
	return row, nil
}

// resultHeader names the figures of a Result in a table.
var resultHeader = []string{"calls/s", "p50", "p99", "p99.9", "server CPU/call", "client CPU/call", "received/s", "resident", "peak"}

// resultNames are the same figures' names in JSON.
var resultNames = []string{"rate_per_second", "p50_ns", "p99_ns", "p999_ns", "server_cpu_per_call_ns", "client_cpu_per_call_ns",
	"received_bytes_per_second", "server_resident_bytes", "server_peak_resident_bytes"}

func (r Result) figures() []figure {
	return []figure{number(r.Rate), span(r.P50), span(r.P99), span(r.P999), span(r.ServerCPU), span(r.ClientCPU),
		size(int64(r.Received)), size(r.Resident), size(r.Peak)}
}

func (r Result) over(other Result) map[string]float64 {
	ratios := map[string]float64{}
	a, b := r.figures(), other.figures()
	for i, name := range resultNames {
		if a[i].value != 0 && b[i].value != 0 {
			ratios[name] = a[i].value / b[i].value
		}
	}
	return ratios
}

// cells of a result; the first says so when no call succeeded.
func (r Result) cells() []string {
	row := cells(r.figures())
	if r.Calls == 0 {
		row[0] = "no answer"
		if r.Errors[unimplemented] > 0 {
			row[0] = unimplemented
		}
	}
	return row
}

// errorCount of a result, all texts together.
func (r Result) errorCount() (n int64) {
	for _, k := range r.Errors {
		n += k
	}
	return n
}

// errorNotes are a line for each text of an error.
func (r Result) errorNotes(what string) (notes []string) {
	for _, text := range slices.Sorted(maps.Keys(r.Errors)) {
		notes = append(notes, fmt.Sprintf("%s, %s: %d x %s", what, r.Server, r.Errors[text], text))
	}
	return notes
}

// rowsTable shows rows of workloads.
func rowsTable(title, about string, rows []Row) *table {
	t := &table{title: title, about: about, data: rows,
		header: append(append([]string{"workload", "server", "clients"}, resultHeader...), "errors")}
	for _, row := range rows {
		clients := strconv.Itoa(row.Options.Clients)
		if row.Options.Rate > 0 {
			clients += fmt.Sprintf(" at %g/s", row.Options.Rate)
		}
		for i, r := range row.Servers {
			name := row.Workload
			if i > 0 {
				name, clients = "", ""
			}
			t.add(append(append([]string{name, r.Server, clients}, r.cells()...), strconv.FormatInt(r.errorCount(), 10))...)
			t.notes = append(t.notes, r.errorNotes(fmt.Sprintf("%s, clients: %d", row.Workload, row.Options.Clients))...)
		}
		if len(row.Servers) == 2 {
			t.add(append(append([]string{"", ratioRow, ""}, ratios(row.Servers[0].figures(), row.Servers[1].figures())...), "")...)
		}
	}
	return t
}

// about says how rows with these options were measured.
func (o Options) about(rounds int) string {
	loop := "closed loop"
	if o.Rate > 0 {
		loop = fmt.Sprintf("open loop, %s arrivals, latencies from the intended start", o.Arrivals)
	}
	return fmt.Sprintf("%d keys of %d bytes with %d random bytes each; %s; %s of %s.",
		o.Keys, o.KeyBytes, o.ValueBytes, loop, medianOf(rounds), o.Duration)
}

func medianOf(rounds int) string {
	if rounds <= 1 {
		return "one round"
	}
	return fmt.Sprintf("the median of %d rounds", rounds)
}
