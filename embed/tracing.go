package embed

import (
	"context"
	"log/slog"
	"time"

	"github.com/kvorum/kvorum/internal/api/ops"
	"github.com/kvorum/kvorum/internal/config"
	"github.com/kvorum/kvorum/internal/rpc"
	"github.com/kvorum/kvorum/internal/telemetry"
	"github.com/kvorum/kvorum/internal/tracing"
)

// flushTraces is how long a member that stops waits for the collector to take what is
// left.
const flushTraces = time.Second

// startTracing begins to send traces if that is wanted. A collector that is not there
// keeps no member from starting.
func (s *Server) startTracing() (err error) {
	t := &s.cfg.Tracing
	if !t.Enable {
		return nil
	}
	instance := t.InstanceID
	if instance == "" { // members of a cluster share the name of the service
		instance = s.home.Member.String()
	}
	s.tracer, err = tracing.Start(tracing.Options{
		Address: t.Address, Service: t.ServiceName, Instance: instance, Version: config.KvorumVersion,
		PerMillion: t.PerMillion, Notes: s.traceNotes, Log: s.log,
	})
	if err == nil {
		s.log.Info("distributed tracing enabled", "address", t.Address, "service-name", t.ServiceName,
			"service-instance-id", instance, "sampling-rate", t.PerMillion)
	}
	return err
}

// callTracer is who is told of calls that have ended; nil if nobody is.
func (s *Server) callTracer() (t rpc.Tracer) {
	if s.tracer != nil {
		t = s.tracer
	}
	if s.lately != nil {
		t = s.lately.Tracer(t)
	}
	return t
}

// keepLately has what happens lately kept in memory if everything is to be told.
func (s *Server) keepLately() {
	if s.cfg.LogLevel != "debug" {
		return
	}
	s.lately = ops.NewLately()
	lines := telemetry.New(s.lately, time.Now, telemetry.Console, slog.LevelDebug)
	s.log = slog.New(slog.NewMultiHandler(s.log.Handler(), lines.Handler()))
}

// applied is who is told of the applier's turns, if anybody is.
func (s *Server) applied() func(time.Duration) {
	if s.tracer == nil {
		return nil
	}
	return s.tracer.Applied
}

// traceNotes is what is known of the time that a call took: for a slow one what the log
// says of it, too.
func (s *Server) traceNotes(took time.Duration) (n tracing.Notes) {
	n.SlowestSync, n.SlowestApply = s.slowestLately()
	if after := s.cfg.WarningUnaryRequestDuration; after > 0 && took > after {
		n.Cause = s.cause(took, n.SlowestSync, n.SlowestApply)
	}
	return n
}

// stopTracing sends what is left of the calls that have ended.
func (s *Server) stopTracing() {
	if s.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTraces)
	defer cancel()
	if err := s.tracer.Close(ctx); err != nil {
		s.log.Debug("traces were lost at the end", "error", err.Error())
	}
}
