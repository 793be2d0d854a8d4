package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/websocket"
)

// isWebSocket says whether a caller wants to speak and listen in messages.
func isWebSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// serveWebSocket makes a POST of what comes on a WebSocket: each message of the
// caller is a piece of the body, each line of the answer a message to it. Browsers
// cannot send a header with it: a token may come as the second of two subprotocols,
// of which the first is "Bearer".
func (g *Gateway) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	var token string
	server := websocket.Server{
		Handshake: func(c *websocket.Config, _ *http.Request) error { // who may is the guard's to say
			if len(c.Protocol) == 2 && c.Protocol[0] == "Bearer" {
				token = c.Protocol[1]
				c.Protocol = c.Protocol[:1]
			}
			return nil
		},
		Handler: func(socket *websocket.Conn) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			socket.MaxPayloadBytes = int(mostJSON(g.opts.MaxRequestBytes))
			post := r.Clone(ctx)
			post.Method = http.MethodPost
			post.ContentLength = -1
			if token != "" {
				post.Header.Set("Authorization", "Bearer "+token)
			}
			body, said := io.Pipe()
			post.Body = body
			go func() {
				// The end of the socket is the end of the call, not only of its requests.
				defer cancel()
				for {
					var message []byte
					if err := websocket.Message.Receive(socket, &message); err != nil {
						said.CloseWithError(io.EOF)
						return
					}
					if _, err := said.Write(message); err != nil {
						return
					}
				}
			}()
			answer := &lines{socket: socket, header: http.Header{}}
			g.serve(answer, post)
			answer.Flush()
			body.Close()
		},
	}
	server.ServeHTTP(w, r)
}

// lines sends what is written to it as messages, one for each line.
type lines struct {
	socket *websocket.Conn
	header http.Header
	rest   []byte
	err    error
}

// Header is http.ResponseWriter's; nobody is sent it.
func (l *lines) Header() http.Header { return l.header }

// WriteHeader is http.ResponseWriter's; nobody is sent it.
func (l *lines) WriteHeader(int) {}

// Write sends the lines that are whole.
func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for l.err == nil {
		end := bytes.IndexByte(l.rest, '\n')
		if end < 0 {
			break
		}
		l.send(l.rest[:end])
		l.rest = l.rest[end+1:]
	}
	return len(p), l.err
}

// Flush sends a line that has no end.
func (l *lines) Flush() {
	if len(l.rest) > 0 {
		l.send(l.rest)
		l.rest = nil
	}
}

func (l *lines) send(line []byte) {
	if l.err == nil {
		l.err = websocket.Message.Send(l.socket, string(line))
	}
}
