package main

import "fmt"

// number is n with the noun behind it, in the plural where there are several.
func number(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprint(n, " ", noun)
}
