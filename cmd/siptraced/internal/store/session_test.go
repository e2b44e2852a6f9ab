package store

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"siptraced/compat/siptrace"
)

// A server that takes connections and says nothing is named as such.
func TestMute(t *testing.T) {
	for _, driver := range []string{siptrace.DriverMySQL, siptrace.DriverPostgres} {
		t.Run(driver, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, _, err = dial(ctx, &Config{URL: siptrace.DBURL{Driver: driver, User: "u", Password: "p", Hosts: []string{l.Addr().String()}, Database: "d"}}, 0)
			if err == nil || !strings.Contains(err.Error(), "the server does not answer: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}
