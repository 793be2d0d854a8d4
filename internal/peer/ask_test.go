package peer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/id"
)

func TestQuestionsAreAnswered(t *testing.T) {
	answer := func(o *Options) {
		o.Answer = func(_ context.Context, from id.Member, kind uint8, body []byte) ([]byte, error) {
			if kind == 9 {
				return nil, fmt.Errorf("no answer to %s", body)
			}
			return fmt.Appendf(nil, "%v asked %d: %s", from, kind, body), nil
		}
	}
	a, b := newNode(t, 1, answer), newNode(t, 2, answer)
	meet(a, b)
	a.awaitConnected(b)
	b.awaitConnected(a)
	var wg sync.WaitGroup
	for i := range 300 {
		n, to := a, b
		if i%2 == 0 {
			n, to = b, a
		}
		wg.Go(func() {
			body := strings.Repeat("x", i*7)
			got, err := asker(t, n, to.opts.Member, 3, body)
			if want := fmt.Sprintf("%v asked 3: %s", n.opts.Member, body); err != nil || got != want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	var theirs *AnswerError
	if _, err := asker(t, a, 2, 9, "this"); !errors.As(err, &theirs) || theirs.Member != 2 || err.Error() != "no answer to this" {
		t.Errorf("got %v", err)
	}
	if got, err := asker(t, a, 2, 1, strings.Repeat("y", maxAsk)); err != nil || len(got) < maxAsk {
		t.Errorf("the largest question: %d bytes, %v", len(got), err)
	}
	if _, err := asker(t, a, 2, 1, strings.Repeat("y", maxAsk+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a question that is too large: %v", err)
	}
}

func TestQuestionsThatComeToNothing(t *testing.T) {
	asked, ended := make(chan struct{}, 10), make(chan struct{}, 10)
	a, b, _, toB := pair(t, func(o *Options) {
		o.Limits.Asks = 2
		if o.Member == 2 {
			o.Answer = func(ctx context.Context, _ id.Member, kind uint8, _ []byte) ([]byte, error) {
				asked <- struct{}{}
				<-ctx.Done()
				ended <- struct{}{}
				return nil, ctx.Err()
			}
		}
	})
	if _, err := asker(t, b, 1, 1, ""); !errors.Is(err, ErrRefused) {
		t.Errorf("asked of one that does not answer: %v", err)
	}
	if _, err := asker(t, a, 7, 1, ""); !errors.Is(err, ErrNotConnected) {
		t.Errorf("asked of nobody: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := a.Ask(ctx, 2, 1, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past its deadline: %v", err)
	}
	receive(t, "the question", asked)
	receive(t, "the deadline at the other side", ended)
	if _, err := a.Ask(ctx, 2, 1, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("asked after the deadline: %v", err)
	}

	results := make(chan error, 2)
	for range 2 {
		go func() {
			// The place of the question above is free a moment after its end was told.
			err := ErrRefused
			for errors.Is(err, ErrRefused) {
				_, err = a.Ask(context.WithoutCancel(t.Context()), 2, 1, nil)
			}
			results <- err
		}()
		receive(t, "the question", asked)
	}
	if _, err := asker(t, a, 2, 1, ""); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	toB.cut()
	for range 2 {
		if err := receive(t, "the end of a question", results); !errors.Is(err, ErrConnectionLost) {
			t.Errorf("after the cut: %v", err)
		}
		receive(t, "the end at the other side", ended)
	}
	b.Close()
	await(t, "the loss", func() bool { _, up := a.ConnectedSince(2); return !up })
	if _, err := asker(t, a, 2, 1, ""); !errors.Is(err, ErrNotConnected) {
		t.Errorf("without a connection: %v", err)
	}
}

func asker(t *testing.T, n *node, to id.Member, kind uint8, body string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := n.Ask(ctx, to, kind, []byte(body))
	return string(got), err
}
