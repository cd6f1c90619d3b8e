// Package frozenwire is package wire as it stood when version 1 of the protocol was fixed (commit
// 7f1add7), with the rules for the instance in an accept. Only tests import it: it stands for a
// peer that was built then and still runs somewhere.
//
// It must never be edited, not even for a fault or for style: the peers that are out there do not
// change either. A test compares its files with their hashes. If a test shows that this package
// does not read what the current one writes, the current one must change. A second version of the
// protocol gets a second copy.
package frozenwire
