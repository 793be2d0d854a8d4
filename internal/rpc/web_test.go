package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// web serves requests over HTTP/2 in clear text.
func serveWeb(t *testing.T, handler http.HandlerFunc, log *slog.Logger) (client *http.Client, url string, connections *atomic.Int32) {
	t.Helper()
	l := listen(t)
	counted := &countedListener{Listener: l, accepted: new(atomic.Int32)}
	s := NewServer(Limits{MaxRequestBytes: 1 << 20}, nil, nil)
	s.ServeWeb(Web{Handler: handler, Log: log})
	served := make(chan error, 1)
	go func() { served <- s.Serve(counted) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}, "http://" + l.Addr().String(), counted.accepted
}

type countedListener struct {
	net.Listener
	accepted *atomic.Int32
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

func readAll(t *testing.T, r *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	all, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func TestRequestsThatAreNoCallsGoToTheHandler(t *testing.T) {
	client, url, _ := serveWeb(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header().Set("X-Two", "a")
		w.Header().Add("X-Two", "b")
		w.Header().Set("Connection", "close") // not a field of HTTP/2
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s q=%s host=%t length=%d proto=%d agent=%s body=%s %v", r.Method, r.URL.Path, r.URL.Query().Get("q"), r.Host != "", r.ContentLength, r.ProtoMajor, r.UserAgent(), body, err)
	}, nil)
	for _, c := range []struct {
		method, body, want string
	}{
		{"GET", "", "GET /a/b q=1 2 host=true length=0 proto=2 agent=me body= <nil>"},
		{"POST", "{}", "POST /a/b q=1 2 host=true length=2 proto=2 agent=me body={} <nil>"},
		{"HEAD", "", ""},
	} {
		r, err := http.NewRequest(c.method, url+"/a/b?q=1%202", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("User-Agent", "me")
		answer, err := client.Do(r)
		if got := readAll(t, answer, err); got != c.want {
			t.Errorf("%s: %q instead of %q", c.method, got, c.want)
		}
		if answer.StatusCode != http.StatusTeapot || strings.Join(answer.Header["X-Two"], ",") != "a,b" || answer.ProtoMajor != 2 {
			t.Errorf("%s: %v %v", c.method, answer.Status, answer.Header)
		}
	}
}

// Both bodies are larger than every window, so each side waits for the other.
func TestLargeBodiesFlowBothWays(t *testing.T) {
	client, url, _ := serveWeb(t, func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(w, r.Body); err != nil {
			t.Errorf("%d bytes, then %v", n, err)
		}
	}, nil)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	answer, err := client.Post(url, "application/octet-stream", bytes.NewReader(sent))
	if got := readAll(t, answer, err); got != string(sent) {
		t.Errorf("%d bytes came back of %d", len(got), len(sent))
	}
	client, url, _ = serveWeb(t, func(w http.ResponseWriter, r *http.Request) {}, nil)
	answer, err = client.Post(url, "application/octet-stream", bytes.NewReader(sent))
	if got := readAll(t, answer, err); got != "" || answer.StatusCode != http.StatusOK {
		t.Errorf("a body that nobody reads: %q, %s", got, answer.Status)
	}
}

// What a handler writes reaches the client while the handler goes on, and the end of
// the client ends the handler.
func TestAnswersAreSentAsTheyAreWritten(t *testing.T) {
	more, ended := make(chan string), make(chan error, 1)
	client, url, _ := serveWeb(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		for line := range more {
			if _, err := io.WriteString(w, line); err != nil {
				t.Error(err)
			}
		}
		<-r.Context().Done()
		_, err := io.WriteString(w, "to nobody")
		ended <- errors.Join(err, r.Context().Err())
	}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(r) // returns once the fields came
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	for _, line := range []string{"one\n", "two\n"} {
		more <- line
		got := make([]byte, len(line))
		if _, err := io.ReadFull(answer.Body, got); err != nil || string(got) != line {
			t.Fatalf("%q, %v", got, err)
		}
	}
	close(more)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the client is gone") {
		t.Errorf("the handler ended with %v", err)
	}
}

// A handler that panics ends its own request, and the connection serves the next.
func TestAPanicEndsOneRequest(t *testing.T) {
	var told bytes.Buffer
	client, url, connections := serveWeb(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			io.WriteString(w, "half")
			panic("no more")
		}
		io.WriteString(w, "fine")
	}, slog.New(slog.NewTextHandler(&told, nil)))
	answer, err := client.Get(url + "/bad")
	if err == nil {
		_, err = io.ReadAll(answer.Body)
		answer.Body.Close()
	}
	if err == nil {
		t.Error("an answer that a panic cut short looked whole")
	}
	answer, err = client.Get(url)
	if got := readAll(t, answer, err); got != "fine" {
		t.Errorf("after the panic: %q", got)
	}
	if !strings.Contains(told.String(), "no more") || connections.Load() != 1 {
		t.Errorf("told %q; %d connections", told.String(), connections.Load())
	}
}
