package bench

import (
	"fmt"
	"maps"
	"slices"
)

// finding is what one turn of a scenario found of one server.
type finding interface {
	server() string
	// faults are what went wrong, by text.
	faults() map[string]int64
}

// column is a figure of a scenario's table.
type column[F finding] struct {
	name string
	of   func(F) figure
}

// scenarioTable is a table with a row for each case and server, and after two
// servers one of their ratios; of each figure the median of the rounds counts.
func scenarioTable[F finding](title, about string, columns []column[F]) *table {
	t := &table{title: title, about: about, header: []string{title, "server"}}
	for _, c := range columns {
		t.header = append(t.header, c.name)
	}
	t.header = append(t.header, "errors")
	return t
}

// addCase adds what the rounds of each server found in one case.
func addCase[F finding](t *table, name string, servers [][]F, columns []column[F]) {
	figures := make([][]figure, len(servers))
	for i, rounds := range servers {
		for _, c := range columns {
			figures[i] = append(figures[i], medianFigure(rounds, c.of))
		}
		errors := map[string]int64{}
		var count int64
		for _, r := range rounds {
			for text, n := range r.faults() {
				errors[text] += n
				count += n
			}
		}
		who := rounds[0].server()
		row := append([]string{name, who}, cells(figures[i])...)
		t.add(append(row, fmt.Sprint(count))...)
		for _, text := range slices.Sorted(maps.Keys(errors)) {
			t.notes = append(t.notes, fmt.Sprintf("%s, %s: %d x %s", name, who, errors[text], text))
		}
	}
	if len(servers) == 2 {
		t.add(append(append([]string{"", ratioRow}, ratios(figures[0], figures[1])...), "")...)
	}
}

func medianFigure[R any](rounds []R, of func(R) figure) figure {
	f := of(rounds[0])
	f.value = median(rounds, func(r R) float64 { return of(r).value })
	return f
}

// added is the sum of two counts of errors.
func added(a, b map[string]int64) map[string]int64 {
	sum := maps.Clone(a)
	if sum == nil {
		sum = map[string]int64{}
	}
	for text, n := range b {
		sum[text] += n
	}
	return sum
}
