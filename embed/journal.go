package embed

import (
	"bytes"
	"io"

	"github.com/coreos/go-systemd/v22/journal"
)

// journald is systemd's journal on this machine, as go-systemd speaks to it.
type journald struct {
	enabled func() bool
	send    func(message string, priority journal.Priority, vars map[string]string) error
}

var systemdJournal = journald{enabled: journal.Enabled, send: journal.Send}

// journalOutput is the log output systemd/journal: each line is an entry, so that
// journalctl knows its priority. What the journal does not take goes to another output.
type journalOutput struct {
	journald
	instead io.Writer
}

var journalFields = map[string]string{"SYSLOG_IDENTIFIER": "etcd"}

// Write sends a line.
func (j *journalOutput) Write(line []byte) (int, error) {
	message := bytes.TrimSuffix(line, []byte("\n"))
	if err := j.send(string(message), priority(message), journalFields); err != nil {
		return j.instead.Write(line)
	}
	return len(line), nil
}

// priority is syslog's for the level of a line, which is its first field as JSON and
// its second one for the console.
func priority(line []byte) journal.Priority {
	level, isJSON := bytes.CutPrefix(line, []byte(`{"level":"`))
	if isJSON {
		level, _, _ = bytes.Cut(level, []byte{'"'})
	} else {
		_, level, _ = bytes.Cut(line, []byte{'\t'})
		level, _, _ = bytes.Cut(level, []byte{'\t'})
	}
	switch string(level) {
	case "debug":
		return journal.PriDebug
	case "info":
		return journal.PriInfo
	case "warn":
		return journal.PriWarning
	case "error":
		return journal.PriErr
	}
	return journal.PriCrit
}
