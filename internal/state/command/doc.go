// Package command is every kind of command that the replicated state obeys: its
// codec (format version 1, rule 18), its class, and the requests and answers of
// the key-value store that commands carry.
//
// A command is encoded once, by the member that a client asked, and stamped by
// the host with its origin and term when it is proposed; the same bytes are in
// the log, on the wire and at apply. docs/format/command.md has the layout.
package command
