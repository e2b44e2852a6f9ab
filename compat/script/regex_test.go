package script

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// TestMatchers compares the direct comparisons and the look for needed text with
// the regular expression itself.
func TestMatchers(t *testing.T) {
	patterns := []string{
		"", "a", "abc", "^abc", "abc$", "^abc$", "^(a|b)$", "^(INVITE|ACK|BYE)", "a|b|cd", "^a|b$", "(ab)?c", "^[ab]c", "[0-9]+", "^sip:.*@h$", "a.c", "a*b", "(a|b)*c",
		"x(a|bc|)y", "^$", "^", "$", "a+b+", "[^a]b", "(sip|sips):k", `\.ab\.`, "ab{2}c", "a{0,1}b", "K", "s$", "(a(b(c)?)?)?", `a\b`, `^\s*a`, "ä", "[[:alpha:]]a", "^(a|ab)(c|bcd)$",
	}
	const letters = "aAbBcCxyksSK:.@ 0ihp\nINVTECKBY"
	rng := rand.New(rand.NewPCG(1, 2))
	var m Message
	for _, pattern := range patterns {
		for _, mode := range []regexMode{anyCase, byLines, exactCase} {
			re2, err := translate(pattern, mode)
			if err != nil {
				t.Errorf("%s: %v", pattern, err)
				continue
			}
			re, match := regexp.MustCompile(re2), must(t, pattern, mode)
			texts := []string{"", "abc", "ABC", "xabcx", "INVITE", "invite", "ack", "sip:a@h", "SIPS:K", "ä", "a\nb"}
			for range 300 {
				b := make([]byte, rng.IntN(12))
				for i := range b {
					b[i] = letters[rng.IntN(len(letters))]
				}
				texts = append(texts, string(b))
			}
			for _, s := range texts {
				if got, want := match(&m, []byte(s)), re.MatchString(s); got != want {
					t.Errorf("%q, mode %d, in %q: got %v, want %v", pattern, mode, s, got, want)
				}
			}
		}
	}
}

func must(t *testing.T, pattern string, mode regexMode) matcher {
	t.Helper()
	match, err := compileRegex(pattern, mode)
	if err != nil {
		t.Fatal(err)
	}
	return match
}

// TestTranslate shows what becomes of POSIX in RE2.
func TestTranslate(t *testing.T) {
	for in, want := range map[string]string{
		`a.c`: `a.c`, `a\.c`: `a\.c`, `a\d`: `ad`, `a+?`: `(?:a+)?`, `(a|b)*+`: `(?:(?:a|b)*)+`, `[]a]`: `[\]a]`, `[^]a-]`: `[^\]a\-]`, `[\d]`: `[\\d]`,
		`[[:digit:]x]`: `[[:digit:]x]`, `[[:upper:]]`: `[[:alpha:]]`, `a{,3}`: `a{0,3}`, `a{2,}b`: `a{2,}b`, `a)`: `a\)`, `\<ab\>`: `\bab\b`, "\\`a\\'": `\Aa\z`,
		`(a)(b)`: `(?:a)(?:b)`, `[+--]`: `[\+-\-]`, `é+`: `é+`,
	} {
		got, err := translate(in, anyCase)
		if got = strings.TrimPrefix(got, "(?is)"); got != want || err != nil {
			t.Errorf("%s: got %s, %v, want %s", in, got, err, want)
		}
		if _, err := regexp.Compile(got); err != nil {
			t.Error(err)
		}
	}
}
