package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// module makes a module whose tests do all that tests do, and goes there.
func module(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module x\n\ngo 1.24\n"
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "-mod=mod")
}

func TestRun(t *testing.T) {
	head := "package a\n\nimport (\n\t\"testing\"\n)\n\n"
	module(t, map[string]string{
		"good/a_test.go":  head + "func TestGood(t *testing.T) { t.Log(\"hidden\") }\n",
		"bad/a_test.go":   head + "func TestFine(t *testing.T) {}\nfunc TestBad(t *testing.T) {\n\tt.Run(\"sub\", func(t *testing.T) { t.Error(\"the cause\") })\n}\n",
		"panic/a_test.go": head + "func TestPanic(t *testing.T) { panic(\"out of order\") }\n",
		"build/a_test.go": head + "func TestBuild(t *testing.T) { undefinedThing() }\n",
		"none/a.go":       "package a\n",
		"exit/a_test.go":  "package a\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestMain(m *testing.M) { println(\"gone early\"); os.Exit(3) }\n",
	})
	var b strings.Builder
	code, _, err := run([]string{"./..."}, &b)
	out := b.String()
	if code != 1 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	before, last, ok := strings.Cut(out, "\n--- what failed: 4\n")
	if !ok {
		t.Fatalf("no summary of four failures:\n%s", out)
	}
	for _, s := range []string{"FAIL: x/bad TestBad/sub\n", "the cause", "FAIL: x/panic TestPanic\n", "out of order", "FAIL: build of x/build", "undefinedThing", "FAIL: x/exit\n", "gone early"} {
		if !strings.Contains(last, s) {
			t.Errorf("the summary does not say %q:\n%s", s, last)
		}
	}
	for _, s := range []string{"ok  \tx/good", "FAIL\tx/bad", "the cause"} {
		if !strings.Contains(before, s) {
			t.Errorf("no %q in\n%s", s, before)
		}
	}
	for _, s := range []string{"hidden", "TestFine", "no test files"} {
		if strings.Contains(out, s) {
			t.Errorf("%q is there:\n%s", s, out)
		}
	}
	b.Reset()
	if code, _, err := run([]string{"-v", "./good"}, &b); code != 0 || err != nil || !strings.Contains(b.String(), "hidden") || strings.Contains(b.String(), "what failed") {
		t.Errorf("%d, %v\n%s", code, err, b.String())
	}
	b.Reset()
	if code, _, _ := run([]string{"./nothing"}, &b); code == 0 {
		t.Errorf("a package that is not there: exit code 0\n%s", b.String())
	}
}

// The summary fits into the end of a log, whatever failed.
func TestSummaryIsShort(t *testing.T) {
	for _, n := range []int{1, 2, 7, 40, 500} {
		var b strings.Builder
		p := newPrinter(&b, false)
		for i := range n {
			p.failures = append(p.failures, failure{fmt.Sprint("test", i), strings.Repeat(strings.Repeat("x", 1000)+"\n", 200), ""})
		}
		p.summary()
		lines := strings.Split(b.String(), "\n")
		if len(lines) > summaryLines+6 {
			t.Errorf("%d failures: %d lines", n, len(lines))
		}
		if !strings.Contains(b.String(), "FAIL: test0") || n > 40 && !strings.Contains(b.String(), " more\n") {
			t.Errorf("%d failures:\n%s", n, b.String())
		}
	}
}

func TestAgain(t *testing.T) {
	body := "package a\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n" +
		"func TestOnce(t *testing.T) {\n\tif f, err := os.OpenFile(\"was\", os.O_CREATE|os.O_EXCL, 0o600); err == nil {\n\t\tf.Close()\n\t\tt.Error(\"a bad day\")\n\t}\n}\n" +
		"func TestBad(t *testing.T) {\n\tif os.Getenv(\"BAD\") != \"\" {\n\t\tt.Error(\"always\")\n\t}\n}\n"
	for _, c := range []struct {
		name, again, bad string
		code             int
		says, not        string
	}{
		{"passes then", "TestOnce", "", 0, "failed once, passed alone: TestOnce", "FAIL"},
		{"no other", "TestOnce", "1", 1, "FAIL: x/a TestBad", "second try"},
		{"always", "Test", "1", 1, "FAIL: x/a TestBad", "passed alone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			module(t, map[string]string{"a/a_test.go": body})
			t.Setenv("BAD", c.bad)
			var b strings.Builder
			code, err := runAgain([]string{"-v", "-count=1", "-run", "Test", "./..."}, regexp.MustCompile(c.again), &b)
			if out := b.String(); code != c.code || err != nil || !strings.Contains(out, c.says) || strings.Contains(out, c.not) || !strings.Contains(out, "a bad day") {
				t.Errorf("exit code %d, %v:\n%s", code, err, out)
			}
		})
	}
}
