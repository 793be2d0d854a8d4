// Package exit has the codes that etcdctl and etcdutl end with, which scripts test for
// (spec/etcdctl.md), and errors that ask for one of them.
package exit

import (
	"errors"
	"fmt"
	"io"

	"github.com/kvorum/kvorum/internal/cli/print"
)

// Exit codes.
const (
	CodeError         = 1
	CodeBadConnection = 2
	CodeBadInput      = 3
	CodeBadFeature    = 4
	CodeInterrupted   = 5
	CodeBadArgs       = 128
)

// ErrReported ends a command whose trouble is on standard error already.
var ErrReported = errors.New("reported")

// failure is an error with the exit code that it asks for.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// With is an error that asks for a code.
func With(code int, err error) error { return &failure{code, err} }

// BadArgs is an error of what was said on the command line. The arguments are those of
// fmt.Errorf, here and below.
func BadArgs(format string, args ...any) error {
	return &failure{CodeBadArgs, fmt.Errorf(format, args...)}
}

// BadInput is an error of what was read.
func BadInput(format string, args ...any) error {
	return &failure{CodeBadInput, fmt.Errorf(format, args...)}
}

// BadFeature is an error of what the program, or the form of its answer, does not have.
func BadFeature(format string, args ...any) error {
	return &failure{CodeBadFeature, fmt.Errorf(format, args...)}
}

// Code is the exit code for an error: 0 for none, what it asks for, or the general one.
func Code(err error) int {
	var f *failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &f):
		return f.code
	case errors.Is(err, print.ErrFormat):
		return CodeBadFeature
	}
	return CodeError
}

// Tell writes the line by which a program says why it ends, unless there is nothing to
// say or it was said, and returns the exit code.
func Tell(stderr io.Writer, err error) int {
	if err != nil && !errors.Is(err, ErrReported) {
		fmt.Fprintln(stderr, "Error:", err)
	}
	return Code(err)
}
