package embed

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
)

// journalSocket is where systemd's journal takes datagrams.
const journalSocket = "/run/systemd/journal/socket"

// journal is the log output systemd/journal: each line is a datagram of fields to
// systemd's journal, so that journalctl knows its priority. What the journal does not
// take (it has gone, the line is larger than a datagram) goes to another output.
type journal struct {
	conn    *net.UnixConn
	instead io.Writer
}

// openJournal connects to the journal. Errors: those of the socket, where there is none.
func openJournal(socket string, instead io.Writer) (*journal, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &journal{conn: conn, instead: instead}, nil
}

// Write sends a line.
func (j *journal) Write(line []byte) (int, error) {
	message := bytes.TrimSuffix(line, []byte("\n"))
	fields := append([]byte("SYSLOG_IDENTIFIER=etcd\nPRIORITY="), priority(message), '\n')
	// A value that may have more than one line is told by its length.
	fields = append(fields, "MESSAGE\n"...)
	fields = binary.LittleEndian.AppendUint64(fields, uint64(len(message)))
	fields = append(append(fields, message...), '\n')
	if _, err := j.conn.Write(fields); err != nil {
		return j.instead.Write(line)
	}
	return len(line), nil
}

// Close ends the connection.
func (j *journal) Close() error { return j.conn.Close() }

// priority is syslog's digit for the level of a line, which is its first field as JSON
// and its second one for the console.
func priority(line []byte) byte {
	level, isJSON := bytes.CutPrefix(line, []byte(`{"level":"`))
	if isJSON {
		level, _, _ = bytes.Cut(level, []byte{'"'})
	} else {
		_, level, _ = bytes.Cut(line, []byte{'\t'})
		level, _, _ = bytes.Cut(level, []byte{'\t'})
	}
	switch string(level) {
	case "debug":
		return '7'
	case "info":
		return '6'
	case "warn":
		return '4'
	case "error":
		return '3'
	}
	return '2'
}
