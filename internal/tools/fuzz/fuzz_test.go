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
