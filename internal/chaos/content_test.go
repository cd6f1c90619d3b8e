package main

import "testing"

// TestContent derives content of all sizes, and finds that of others.
func TestContent(t *testing.T) {
	for _, size := range []int{0, 1, 7, 300, large} {
		data := content("call-1", 7, size)
		if len(data) != size {
			t.Errorf("%d bytes, want %d", len(data), size)
		}
		if wrong := wrongContent("call-1", 7, data); wrong != "" {
			t.Errorf("%d bytes: %s", size, wrong)
		}
		if size < len("call-1#7") {
			continue // too short to tell
		}
		if wrongContent("call-2", 7, data) == "" || wrongContent("call-1", 8, data) == "" {
			t.Errorf("%d bytes are taken for those of another", size)
		}
		data[size-1] ^= 1
		if wrongContent("call-1", 7, data) == "" {
			t.Errorf("%d bytes: a changed one is not found", size)
		}
	}
}

// TestItems finds items that are another stream's.
func TestItems(t *testing.T) {
	in := items{call: "c"}
	in.add(newItem("c", 0, 100))
	if in.wrong != "" {
		t.Error(in.wrong)
	}
	in.add(newItem("d", 1, 100))
	if want := "an item of the call d"; in.wrong != want {
		t.Errorf("%q, want %q", in.wrong, want)
	}
	in.add(newItem("c", 2, 100))
	if in.got.count() != 3 || in.wrong == "" {
		t.Errorf("%+v", in)
	}
}
