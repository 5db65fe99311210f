package main

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	out := "FuzzA\nFuzzB\nok  \texample.com/x\t0.003s\n?   \texample.com/y\t[no test files]\nok  \texample.com/z\t0.1s\nFuzzC\nok  \texample.com/w\t(cached)\n"
	want := []target{{"example.com/x", "FuzzA"}, {"example.com/x", "FuzzB"}, {"example.com/w", "FuzzC"}}
	if got := parse([]byte(out)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRanOut(t *testing.T) {
	for out, want := range map[string]bool{
		"--- FAIL: FuzzA (60.28s)\n    context deadline exceeded\nFAIL\n":                                                       true,
		"--- FAIL: FuzzA (3s)\n    --- FAIL: FuzzA (0.00s)\n        a_test.go:9: wrong\n    Failing input written to x\nFAIL\n": false,
		"--- FAIL: FuzzA (3s)\n    context deadline exceeded\n    Failing input written to x\nFAIL\n":                           false,
		"panic: boom\n": false,
	} {
		if got := ranOut(out); got != want {
			t.Errorf("%q: %v", out, got)
		}
	}
}
