package ere_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"siptraced/compat/ere"
)

func ExampleCompile() {
	re, err := ere.Compile(`^(sips?):([^@]*)@\<example`, ere.FoldCase|ere.Captures)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%q\n", re.FindStringSubmatch("SIP:alice@example.com"))

	_, err = ere.Compile(`(.)\1`, 0)
	fmt.Println(err)
	// Output:
	// ["SIP:alice@example" "SIP" "alice"]
	// \1 is a back reference: write the alternatives out
}

// TestTranslate shows what becomes of POSIX in RE2.
func TestTranslate(t *testing.T) {
	for in, want := range map[string]string{
		`a.c`: `a.c`, `a\.c`: `a\.c`, `a\d`: `ad`, `a+?`: `(?:a+)?`, `(a|b)*+`: `(?:(?:a|b)*)+`, `[]a]`: `[\]a]`, `[^]a-]`: `[^\]a\-]`, `[\d]`: `[\\d]`,
		`[[:digit:]x]`: `[[:digit:]x]`, `[[:upper:]]`: `[[:alpha:]]`, `a{,3}`: `a{0,3}`, `a{2,}b`: `a{2,}b`, `a)`: `a\)`, `\<ab\>`: `\bab\b`, "\\`a\\'": `\Aa\z`,
		`(a)(b)`: `(?:a)(?:b)`, `[+--]`: `[\+-\-]`, `é+`: `é+`,
	} {
		got, err := ere.Translate(in, ere.FoldCase)
		if got = strings.TrimPrefix(got, "(?is)"); got != want || err != nil {
			t.Errorf("%s: got %s, %v, want %s", in, got, err, want)
		}
		if _, err := regexp.Compile(got); err != nil {
			t.Error(err)
		}
	}
}

// TestFlags: what each of them changes.
func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		flags   ere.Flags
		text    string
		want    string // of the match and its groups
	}{
		{"B", 0, "abc", "[]"},
		{"B", ere.FoldCase, "abc", `["b"]`},
		{"[[:upper:]]", 0, "abC", `["C"]`},
		{"[[:upper:]]", ere.FoldCase, "abC", `["a"]`},
		{"^b.c", 0, "a\nb\nc", "[]"},
		{"b.c$", 0, "a\nb\nc", `["b\nc"]`},
		{"^b", ere.Newline, "a\nb\nc", `["b"]`},
		{"b.c", ere.Newline, "a\nb\nc", "[]"},
		{"b[^x]c", ere.Newline, "a\nb\nc", "[]"},
		{"b[^x]c", 0, "a\nb\nc", `["b\nc"]`},
		{"b$", ere.Newline | ere.FoldCase, "a\nB\nc", `["B"]`},
		{"a|ab", 0, "abcd", `["a"]`},
		{"(a|ab)(c|bcd)*", ere.Captures, "abcd", `["abcd" "a" "bcd"]`},
		{"a|ab", ere.Captures, "abcd", `["ab"]`},
		{`\w\W\s\S`, 0, "a- b", `["a- b"]`},
		{"a{,2}b", ere.Captures, "aaab", `["aab"]`},
	} {
		re, err := ere.Compile(tt.pattern, tt.flags)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		if got := fmt.Sprintf("%q", re.FindStringSubmatch(tt.text)); got != tt.want {
			t.Errorf("%s, flags %b, in %q: got %s, want %s", tt.pattern, tt.flags, tt.text, got, tt.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for in, want := range map[string]string{
		`(a)\1`: `\1 is a back reference: write the alternatives out`, `a{1,5000}`: `{1,5000} repeats more than 1000 times`,
		`a{2,1}`: `{2,1} is no count; write \{ for the character`, `a{`: `{ is never closed; write \{ for the character`, `*a`: "nothing before *, +, ? or { to repeat",
		`(a`: "( is never closed", `[a`: "[ is never closed", `a\`: "it ends in a backslash", `[[:none:]]`: "[:none:] is no class", `[[=a=]]`: "[= =] and [. .] are not taken, and [: needs its :]",
		`a \< b`: `\< can stand only beside a letter, digit or _; use \b`, `[z-a]`: "z-a is refused: invalid character class range",
		strings.Repeat("a", ere.MaxPattern+1): "it is longer than 2048 bytes", "((a{200}){200}){200}": "",
	} {
		_, err := ere.Compile(in, ere.FoldCase)
		var e *ere.Error
		if !errors.As(err, &e) || want != "" && err.Error() != want {
			t.Errorf("%.40s: got %v, want %s", in, err, want)
		}
		if e != nil && e.Piece != "" && strings.Contains(e.Reason, e.Piece) {
			t.Errorf("%.40s: the reason %q repeats the expression", in, e.Reason)
		}
	}
}

// FuzzCompile: what is taken, Go's engine takes as well, and nothing is refused without a reason.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{"^(a|b)*$", `\<[[:alnum:]_]{,3}\>`, "[]a-]", "a**", `\(`, "x{2,}"} {
		f.Add(s, uint8(0))
	}
	f.Fuzz(func(t *testing.T, pattern string, flags uint8) {
		re, err := ere.Compile(pattern, ere.Flags(flags&7))
		var e *ere.Error
		if err != nil && (!errors.As(err, &e) || e.Reason == "") || (err == nil) == (re == nil) {
			t.Fatalf("%q: %v", pattern, err)
		}
	})
}
