package guesttest

import "strings"

// linesWith are the lines of text that have all of words.
func linesWith(text string, words ...string) (found []string) {
line:
	for l := range strings.Lines(text) {
		for _, w := range words {
			if !strings.Contains(l, w) {
				continue line
			}
		}
		found = append(found, strings.TrimSpace(l))
	}
	return found
}
