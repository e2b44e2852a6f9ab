package config

import (
	"flag"
	"os"
	"strings"
	"testing"

	"siptraced/compat/siptrace"
)

var update = flag.Bool("update", false, "write the documentation's tables")

// The documentation's tables are those that the program makes.
func TestDocumentation(t *testing.T) {
	const begin, end = "<!-- parameters: made by go test ./cmd/siptraced/internal/config -update -->\n", "<!-- end of the parameters -->\n"
	for _, tt := range []struct {
		path string
		want func(now string) string
	}{
		{"../../CONFIGURATION.md", func(string) string { return Markdown() }},
		{"../../../../compat/README.md", func(now string) string {
			before, rest, ok1 := strings.Cut(now, begin)
			_, after, ok2 := strings.Cut(rest, end)
			if !ok1 || !ok2 {
				t.Fatal("compat/README.md has no place for the parameters")
			}
			return before + begin + ParamTable() + end + after
		}},
	} {
		now, err := os.ReadFile(tt.path)
		if err != nil && !*update {
			t.Fatal(err)
		}
		want := tt.want(string(now))
		if string(now) == want {
			continue
		}
		if !*update {
			t.Errorf("%s is not current: go test ./cmd/siptraced/internal/config -run Documentation -update", tt.path)
			continue
		}
		if err := os.WriteFile(tt.path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Every parameter is described.
func TestParamDocs(t *testing.T) {
	for _, s := range siptrace.Specs() {
		if s.Doc == "" {
			t.Errorf("%s is not described", s.Name)
		}
	}
}
