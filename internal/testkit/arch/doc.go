// Package arch keeps the shape of the house by test: which package may import
// which, who may touch the outside world, how large files and functions grow,
// and that every package says what it is. It has no product code.
package arch
