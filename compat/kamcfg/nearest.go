package kamcfg

import "strings"

// Nearest finds the known name that a misspelt one most likely means: the one
// with the least edit distance, letter case aside, if that is at most a third
// of the name's length. Otherwise "".
func Nearest(name string, known []string) string {
	const longest = 64
	if len(name) > longest {
		return ""
	}
	best, at := max(1, len(name)/3)+1, ""
	for _, k := range known {
		if len(k) > longest {
			continue
		}
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < best {
			best, at = d, k
		}
	}
	return at
}

// distance is the number of letters to put in, take out, replace or swap with
// their neighbour (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// suggest is the hint for a name that isn't known, or the fallback.
func suggest(name string, known []string, fallback string) string {
	if n := Nearest(name, known); n != "" {
		return "did you mean " + n + "?"
	}
	return fallback
}
