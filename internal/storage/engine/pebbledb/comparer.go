package pebbledb

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

var errShape = errors.New("not the shape of a key")

// comparer is the order of engine/keys in Pebble's terms. Everything that ever
// wrote a table must agree with it, so it can never change (rule 19).
var comparer = &pebble.Comparer{
	Name:                 keys.OrderName,
	Compare:              keys.Compare,
	Equal:                keys.Equal,
	ComparePointSuffixes: keys.CompareSuffixes,
	CompareRangeSuffixes: keys.CompareSuffixes,
	AbbreviatedKey:       keys.Abbreviate,
	Separator:            keys.AppendSeparator,
	Successor:            keys.AppendSuccessor,
	ImmediateSuccessor:   keys.AppendImmediateSuccessor,
	Split:                keys.Split,
	FormatKey:            func(key []byte) fmt.Formatter { return keys.Text(key) },
	ValidateKey: func(key []byte) error {
		if !keys.Valid(key) {
			return errShape
		}
		return nil
	},
}
