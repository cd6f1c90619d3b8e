package main

import (
	"os"
	"strings"
	"testing"
)

// asked is a call of a register from one second to another; r is its end.
func asked(id, method string, from, to instant, o Operation, r record) []record {
	o.Key = "k"
	if r.Code == "" {
		r.Code = okCode
	}
	if r.Op != nil {
		r.Op.Key = "k"
	}
	r.At, r.Process, r.Kind, r.Call, r.Method = to*second, "client-0", ended, id, method
	return []record{{At: from * second, Process: "client-0", Kind: began, Call: id, Method: method, Op: &o}, r}
}

func answers(value int64) record { return record{Op: &Operation{Value: value}} }

func swaps(value int64, swapped bool) record {
	return record{Op: &Operation{Value: value, Swapped: swapped}}
}

func fails(code, claim string) record { return record{Code: code, Claim: claim} }

// TestCheckRegisters has histories that one register can have, and those in which a claim or an
// answer is a lie.
func TestCheckRegisters(t *testing.T) {
	add := func(id string, from, to instant, value int64, r record) []record {
		return asked(id, methodIncrease, from, to, Operation{Value: value}, r)
	}
	read := func(id string, from, to instant, r record) []record {
		return asked(id, methodRead, from, to, Operation{}, r)
	}
	swap := func(id string, from, to instant, expected, value int64, r record) []record {
		return asked(id, methodSwap, from, to, Operation{Expected: expected, Value: value}, r)
	}
	tests := []struct {
		name    string
		records []record
		legal   bool
	}{
		{"one after the other", join(add("a", 1, 2, 5, answers(5)), read("b", 3, 4, answers(5)), swap("c", 5, 6, 5, 9, swaps(9, true)), swap("d", 7, 8, 5, 1, swaps(9, false))), true},
		{"at the same time, in any order", join(add("a", 1, 5, 5, answers(8)), add("b", 1, 5, 3, answers(3)), read("c", 2, 3, answers(3))), true},
		{"an old value", join(add("a", 1, 2, 5, answers(5)), read("b", 3, 4, answers(0))), false},
		{"a lost update", join(add("a", 1, 5, 5, answers(5)), add("b", 1, 5, 3, answers(3))), false},
		{"twice", join(add("a", 1, 2, 5, answers(5)), read("b", 3, 4, answers(10))), false},
		{"a swap of another value", join(add("a", 1, 2, 5, answers(5)), swap("b", 3, 4, 4, 9, swaps(9, true))), false},
		{"two swaps of one value", join(swap("a", 1, 5, 0, 4, swaps(4, true)), swap("b", 1, 5, 0, 9, swaps(9, true))), false},

		{"not run, and did not", join(add("a", 1, 2, 5, fails(unavailableCode, notRun)), read("b", 3, 4, answers(0))), true},
		{"not run, and did", join(add("a", 1, 2, 5, fails(unavailableCode, notRun)), read("b", 3, 4, answers(5))), false},
		{"not run, and does later", join(add("a", 1, 2, 5, fails(unavailableCode, notRun)), read("b", 3, 4, answers(0)), add("c", 5, 6, 1, answers(6))), false},
		{"did run, and did", join(add("a", 1, 2, 5, fails(abortedCode, didRun)), read("b", 3, 4, answers(5))), true},
		{"did run, and did not", join(add("a", 1, 2, 5, fails(abortedCode, didRun)), read("b", 3, 4, answers(0))), false},
		{"did run, and did so later", join(add("a", 1, 2, 5, fails(abortedCode, didRun)), read("b", 3, 4, answers(0)), read("c", 5, 6, answers(5))), false},
		{"may have run, and did", join(add("a", 1, 2, 5, fails(unavailableCode, mayHaveRun)), read("b", 3, 4, answers(5))), true},
		{"may have run, and did so later", join(add("a", 1, 2, 5, fails(unavailableCode, mayHaveRun)), read("b", 3, 4, answers(0)), read("c", 5, 6, answers(5))), true},
		{"may have run, and did not", join(add("a", 1, 2, 5, fails(unavailableCode, mayHaveRun)), read("b", 3, 4, answers(0))), true},
		{"may have run, and did twice", join(add("a", 1, 2, 5, fails(unavailableCode, mayHaveRun)), read("b", 3, 4, answers(10))), false},
		{"may have run, before it was made", join(read("b", 1, 2, answers(5)), add("a", 3, 4, 5, fails(unavailableCode, mayHaveRun))), false},
		{"no end", join(add("a", 1, 2, 5, record{})[:1], read("b", 3, 4, answers(5))), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found, f := collect(test.records).checkRegisters()
			if f.histories != 1 || f.undecided != 0 {
				t.Errorf("%+v", f)
			}
			switch {
			case test.legal && len(found) > 0:
				t.Errorf("%s", found[0].What)
			case !test.legal && len(found) != 1:
				t.Errorf("%d violations", len(found))
			case !test.legal:
				checkPicture(t, found)
			}
		})
	}
}

// checkPicture draws a violation, and its text has the path.
func checkPicture(t *testing.T, found []violation) {
	t.Helper()
	dir := t.TempDir()
	if err := draw(found, dir); err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut(found[0].What, "linearizable: ")
	if picture, err := os.ReadFile(path); err != nil || !strings.Contains(string(picture), "<html") {
		t.Errorf("%q has no picture: %v", found[0].What, err)
	}
}

// TestRegistersApart: registers have histories of their own, and calls of other methods none.
func TestRegistersApart(t *testing.T) {
	other := asked("c", methodRead, 3, 4, Operation{}, answers(0))
	other[0].Op.Key = "other"
	all := join(asked("a", methodIncrease, 1, 2, Operation{Value: 5}, answers(5)), other,
		asked("d", methodIncrease, 5, 6, Operation{Value: 5}, fails(unavailableCode, mayHaveRun)), beganAt(second, methodAdd))
	found, f := collect(all).checkRegisters()
	if want := (registerFigures{histories: 2, calls: 3, unknown: 1}); len(found) > 0 || f != want {
		t.Errorf("%v, %+v, want %+v", found, f, want)
	}
}
