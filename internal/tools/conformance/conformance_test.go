package main

import (
	"strings"
	"testing"
)

// What iscsi-test-cu 1.19 prints, from its runs; only the middle is told apart here.
const (
	head = "\n\n     CUnit - A unit testing framework for C - Version 2.1-3\n     http://cunit.sourceforge.net/\n\n\n"
	tail = "\n\nRun Summary:    Type  Total    Ran Passed Failed Inactive\n              suites      1      1    n/a      0        0\n"
)

func counts(ran, passed, failed string) string {
	return tail + "               tests      1      " + ran + "      " + passed + "      " + failed + "        0\n" +
		"             asserts      4      4      0      4      n/a\n\nElapsed time =    0.001 seconds\n"
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, out string
		want      verdict
		reason    string
	}{
		{"pass", head + "Suite: Read6\n  Test: Simple ...passed" + counts("1", "1", "0"), pass, ""},
		{"a probe is no skip", "    [SKIPPED] PERSISTENT RESERVE IN is not implemented.\n" + head + "Suite: Read6\n  Test: Simple ...passed" + counts("1", "1", "0"), pass, ""},
		{"so is one of the tear-down", head + "Suite: Read10\n  Test: Simple ...passed    [SKIPPED] PERSISTENT RESERVE IN is not implemented.\n" + counts("1", "1", "0"), pass, ""},
		{"a skip and a tear-down", head + "Suite: W\n  Test: S ...    [SKIPPED] W is not implemented.\npassed    [SKIPPED] PERSISTENT RESERVE IN is not implemented.\n" + counts("1", "1", "0"),
			skip, "W is not implemented."},
		{"skip counts as passed there", head + "Suite: WriteSame10\n  Test: Unmap ...    [SKIPPED] Logical unit is fully provisioned. Skipping test\npassed" + counts("1", "1", "0"),
			skip, "Logical unit is fully provisioned. Skipping test"},
		{"twice the same", head + "Suite: W\n  Test: S ...    [SKIPPED] X is not implemented.\n    [SKIPPED] X is not implemented.\npassed" + counts("1", "1", "0"),
			skip, "X is not implemented."},
		{"fail, reasons", head + "Suite: W\n  Test: S ...    [FAILED] wrong sense\n FAILED\n    1. test_a.c:98  - CU_ASSERT_EQUAL(ret,0)" + counts("1", "0", "1"),
			fail, "wrong sense"},
		{"fail, assertions", head + "Suite: W\n  Test: S ...FAILED\n    1. test_a.c:98  - CU_ASSERT_EQUAL(ret,0)\n    2. test_a.c:99  - CU_ASSERT_EQUAL(ret,1)" + counts("1", "0", "1"),
			fail, "1. test_a.c:98 - CU_ASSERT_EQUAL(ret,0); 2. test_a.c:99 - CU_ASSERT_EQUAL(ret,1)"},
		{"fail beats skip", head + "Suite: W\n  Test: S ...    [SKIPPED] half\nFAILED\n    1. test_a.c:98  - CU_ASSERT_EQUAL(ret,0)" + counts("1", "0", "1"),
			fail, "1. test_a.c:98 - CU_ASSERT_EQUAL(ret,0)"},
		{"fail, and a tear-down", head + "Suite: W\n  Test: S ...    [FAILED] wrong\nFAILED\n    1. test_a.c:98  - CU_FAIL(\"[FAILED] wrong\")    [SKIPPED] PERSISTENT RESERVE IN is not implemented.\n" + counts("1", "0", "1"),
			fail, "wrong"},
		{"no such test", head + counts("0", "0", "0"), fail, "the client ran no test: Elapsed time = 0.001 seconds"},
		{"no login", "Failed to connect to target\n", fail, "the client printed no summary: Failed to connect to target"},
	} {
		got, reason := judge(c.out)
		if got != c.want || strings.Join(strings.Fields(reason), " ") != c.reason {
			t.Errorf("%s: got %s %q, want %s %q", c.name, got, reason, c.want, c.reason)
		}
	}
}

func TestParseList(t *testing.T) {
	got := parseList([]byte("ALL\nALL.Read6\nALL.Read6.Simple\nALL.Read6.BeyondEol\nSCSI\nSCSI.Read6\nSCSI.Read6.Simple\n"))
	if len(got) != 2 || got[0].String() != "Read6.Simple" || got[1].String() != "Read6.BeyondEol" {
		t.Errorf("got %v", got)
	}
}

func TestMatch(t *testing.T) {
	globs := []string{"Read*", "iSCSIcmdsn", "WriteSame10.Unmap*"}
	for s, want := range map[string]bool{"Read10.Async": true, "ReadOnly.ReadOnlySBC": true, "iSCSIcmdsn.x": true,
		"Unmap.Simple": false, "iSCSITMF.x": false, "WriteSame10.UnmapUnaligned": true, "WriteSame10.Simple": false} {
		suite, name, _ := strings.Cut(s, ".")
		if got := match(globs, test{suite, name}); got != want {
			t.Errorf("%s: got %t", s, got)
		}
	}
	if !match([]string{"*"}, test{"Any", "thing"}) {
		t.Error("* does not match everything")
	}
}

// TestReport: what makes a run fail, and what does not.
func TestReport(t *testing.T) {
	r := func(v verdict) result { return result{verdict: v, reason: "because"} }
	for _, c := range []struct {
		name  string
		t     test
		res   map[string]result
		judge bool
		want  int
	}{
		{"passes", test{"Read6", "Simple"}, map[string]result{"A": r(pass), "B": r(pass)}, true, 0},
		{"fails on one layout", test{"Read6", "Simple"}, map[string]result{"A": r(pass), "B": r(fail)}, true, 1},
		{"hangs", test{"Read6", "Simple"}, map[string]result{"A": r(hang), "B": r(pass)}, true, 1},
		{"target died", test{"Read6", "Simple"}, map[string]result{"A": r(died), "B": r(pass)}, true, 1},
		{"skipped on one layout", test{"WriteSame10", "Unmap"}, map[string]result{"A": r(skip), "B": r(pass)}, true, 0},
		{"skipped everywhere", test{"WriteSame10", "Unmap"}, map[string]result{"A": r(skip), "B": r(skip)}, true, 1},
		{"passes nowhere", test{"WriteSame10", "Unmap"}, map[string]result{"A": r(fail), "B": r(skip)}, true, 1},
		{"an allowed failure", test{"GetLBAStatus", "UnmapSingle"}, map[string]result{"A": r(skip), "B": r(pass), "C": r(fail)}, true, 0},
		{"the allowance is for C", test{"GetLBAStatus", "UnmapSingle"}, map[string]result{"B": r(fail), "C": r(fail)}, true, 1},
		{"it has to pass elsewhere", test{"GetLBAStatus", "UnmapSingle"}, map[string]result{"A": r(skip), "B": r(skip), "C": r(fail)}, true, 1},
		{"no target passes it", test{"iSCSITMF", "LUNResetSimpleAsync"}, map[string]result{"A": r(fail), "B": r(fail), "C": r(fail)}, true, 0},
		{"but it must not hang", test{"iSCSITMF", "LUNResetSimpleAsync"}, map[string]result{"A": r(fail), "B": r(hang)}, true, 1},
		{"a peer is not judged", test{"Read6", "Simple"}, map[string]result{"A": r(fail)}, false, 0},
	} {
		rep := &report{layouts: layouts, tests: []test{c.t}, results: map[test]map[string]result{c.t: c.res}, judge: c.judge}
		var out strings.Builder
		if got := rep.print(&out, false); got != c.want {
			t.Errorf("%s: %d against expectation, want %d\n%s", c.name, got, c.want, out.String())
		}
	}
}
