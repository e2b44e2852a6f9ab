package script

import (
	"math/rand/v2"
	"testing"

	"siptraced/compat/ere"
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
		for _, mode := range []ere.Flags{anyCase, byLines, exactCase} {
			re, err := ere.Compile(pattern, mode)
			if err != nil {
				t.Errorf("%s: %v", pattern, err)
				continue
			}
			match := must(t, pattern, mode)
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

func must(t testing.TB, pattern string, mode ere.Flags) matcher {
	t.Helper()
	match, err := compileRegex(pattern, mode)
	if err != nil {
		t.Fatal(err)
	}
	return match
}

// BenchmarkMatch shows what the comparisons of literal.go are worth.
func BenchmarkMatch(b *testing.B) {
	texts := [][]byte{
		[]byte("Deskphone 9000/4.2.1"), []byte("+4930123456"), []byte("sip:+4930123456@biloxi.example.com;transport=udp"),
		[]byte("a84b4c76e66710@pc33.atlanta.example.com"),
	}
	for _, pattern := range []string{"friendly-scanner", "sipvicious|sipcli|sundayddr", "^(100|112|911)$", `\.test\.example$`, `@probe\.example\.com$`, `^\+49`} {
		re, err := ere.Compile(pattern, anyCase)
		if err != nil {
			b.Fatal(err)
		}
		match := must(b, pattern, anyCase)
		var m Message
		for name, f := range map[string]func([]byte) bool{"engine": re.Match, "here": func(t []byte) bool { return match(&m, t) }} {
			b.Run(pattern+"/"+name, func(b *testing.B) {
				for b.Loop() {
					for _, t := range texts {
						f(t)
					}
				}
			})
		}
	}
}
