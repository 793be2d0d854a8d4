package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvorum/kvorum/internal/cli/exit"
	"github.com/kvorum/kvorum/internal/cli/print"
)

// typed is a line of standard input, or the end of it.
type typed struct {
	text string
	err  error
}

// watchLines does as the lines of standard input say until they end, which is an
// error, or until a watch's command fails.
func (s *session) watchLines(ctx context.Context, c *clientv3.Client, p *print.Printer, variables []string) error {
	if err := inStreams(p); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines, failed := make(chan typed), make(chan error)
	go readLines(ctx, s.Stdin, lines)
	for {
		select {
		case err := <-failed:
			return err
		case line := <-lines:
			if line.err != nil {
				return exit.BadInput("error reading watch request line: %w", line.err)
			}
			w, err := s.watchLine(ctx, c, line.text, variables)
			if err != nil {
				return err
			}
			if w == nil {
				continue
			}
			responses := w.begin(ctx, c)
			go func() {
				if err := s.follow(p, responses, w.command); err != nil {
					select {
					case failed <- err:
					case <-ctx.Done():
					}
				}
			}()
		}
	}
}

func readLines(ctx context.Context, from io.Reader, to chan<- typed) {
	for r := bufio.NewReader(from); ; {
		text, err := r.ReadString('\n')
		select {
		case to <- typed{strings.TrimSuffix(text, "\n"), err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// watchLine does as one line says: it asks for progress, or returns a watch. What
// it does not understand it says on standard error, and the next line may be
// better; only quotes without sense and arguments that are no watch's are errors.
func (s *session) watchLine(ctx context.Context, c *clientv3.Client, line string, variables []string) (*watchRequest, error) {
	words, err := splitWords(line)
	switch {
	case err != nil:
		return nil, exit.BadInput("%w", err)
	case len(words) == 0:
		fmt.Fprintf(s.Stderr, "Invalid command: %s (watch and progress supported)\n", line)
	case words[0] == "progress":
		if err := c.RequestProgress(clientv3.WithRequireLeader(ctx)); err != nil {
			return nil, fmt.Errorf("error requesting progress: %w", err)
		}
	case words[0] != "watch":
		fmt.Fprintf(s.Stderr, "Invalid command %s (only support watch)\n", line)
	case len(words) == 1 && len(variables) == 0:
		fmt.Fprintf(s.Stderr, "Invalid command %s (command type or key is not provided)\n", line)
	default:
		w, err := parseWatch(words[1:], variables)
		if errors.Is(err, errWatchEnds) {
			fmt.Fprintf(s.Stderr, "Invalid command %s (%v)\n", line, err)
			return nil, nil
		}
		if err != nil {
			return nil, exit.BadArgs("%w", err)
		}
		return &w, nil
	}
	return nil, nil
}

// parseWatch reads the words that follow "watch" on a line. Its flags are its own:
// those of the command line do not count.
func parseWatch(words, variables []string) (w watchRequest, err error) {
	var f watchFlags
	fs := pflag.NewFlagSet("watch", pflag.ContinueOnError)
	fs.Usage = func() {}
	f.register(fs)
	if err := fs.Parse(words); err != nil {
		return w, err
	}
	return f.request(fs.Args(), fs.ArgsLenAtDash(), variables)
}
