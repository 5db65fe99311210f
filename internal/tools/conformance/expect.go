package main

// An allowance is a test that may be skipped over every layout, with the reason.
// There is none for a failure: a test that fails is a defect of vtgt, or gets an
// entry here with fails set and the proof that the test itself is wrong.
type allowance struct {
	glob  string // SUITE or SUITE.NAME
	fails bool
	why   string
}

// allowances hold for vtgt with the default suites.
var allowances = []allowance{
	{glob: "WriteAtomic16", why: "WRITE ATOMIC(16) is not there yet; VPD B0h says so by zero lengths"},
}

// allowed finds the entry for what happened to a test, nil if there is none.
func allowed(t test, v verdict) *allowance {
	for i := range allowances {
		a := &allowances[i]
		if match([]string{a.glob}, t) && (v == skip || a.fails && v == fail) {
			return a
		}
	}
	return nil
}
