// Package raftlog keeps every group's entries, vote, term, commit and
// configuration on the one shared wal, and reads old entries back (rules 1-8).
//
// Its user is the host's persister: Append stages what the Outputs of many
// groups want persisted, StartSync writes it all as one frame and syncs once.
package raftlog
