// Package metrics shows what a member has counted to Prometheus: under etcd's names,
// with its labels and buckets, what dashboards and alert rules for etcd ask for, and
// under kvorum_ what only this program has. Everything is read when it is asked for:
// nothing is counted here. docs/guide/monitoring.md tells every name, and which of
// etcd's are left out because nothing here could feed them.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kvorum/kvorum/internal/measure"
)

// Source tells what there is to show. Each part of it is asked once for each scrape,
// and puts what it knows.
type Source func(*Sink)

// Handler serves what sources tell, and what is known of the process.
func Handler(sources ...Source) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector(sources))
	return promhttp.InstrumentMetricHandler(registry, promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 8}))
}

// collector asks the sources. It describes nothing beforehand: what a member shows
// depends on its peers and its clients. Descriptions are checked as they come.
type collector []Source

// Describe is prometheus.Collector's.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect is prometheus.Collector's.
func (c collector) Collect(to chan<- prometheus.Metric) {
	for _, source := range c {
		source(&Sink{to: to})
	}
}

// Sink takes what is to be shown. Labels are names and values in turn.
type Sink struct{ to chan<- prometheus.Metric }

// Gauge shows what may rise and fall.
func (s *Sink) Gauge(name, help string, value float64, labels ...string) {
	s.put(name, help, prometheus.GaugeValue, value, labels)
}

// Counter shows what only grows while the process lives.
func (s *Sink) Counter(name, help string, value uint64, labels ...string) {
	s.put(name, help, prometheus.CounterValue, float64(value), labels)
}

func (s *Sink) put(name, help string, kind prometheus.ValueType, value float64, labels []string) {
	names, values := split(labels)
	m, err := prometheus.NewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
	s.send(m, name, help, err)
}

// Is is a number of what is true or not.
func Is(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Seconds shows a distribution of durations.
func (s *Sink) Seconds(name, help string, d measure.Distribution, labels ...string) {
	s.SecondsUpTo(name, help, d, d.Bounds, labels...)
}

// SecondsUpTo is Seconds in fewer buckets than were counted.
func (s *Sink) SecondsUpTo(name, help string, d measure.Distribution, bounds []int64, labels ...string) {
	s.Histogram(name, help, d, bounds, float64(time.Second), labels...)
}

// Histogram shows a distribution of which unit is one.
func (s *Sink) Histogram(name, help string, d measure.Distribution, bounds []int64, unit float64, labels ...string) {
	names, values := split(labels)
	buckets := make(map[float64]uint64, len(bounds))
	for i, n := range d.UpTo(bounds) {
		buckets[float64(bounds[i])/unit] = n
	}
	m, err := prometheus.NewConstHistogram(prometheus.NewDesc(name, help, names, nil), d.Count(), float64(d.Sum)/unit, buckets, values...)
	s.send(m, name, help, err)
}

// send shows a metric, or that it is broken.
func (s *Sink) send(m prometheus.Metric, name, help string, err error) {
	if err != nil {
		m = prometheus.NewInvalidMetric(prometheus.NewDesc(name, help, nil, nil), err)
	}
	s.to <- m
}

// split takes names and values apart.
func split(labels []string) (names, values []string) {
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	return names, values
}
