package rpc_test

import (
	"context"
	"fmt"

	"siptraced/rpc"
)

func Example() {
	reg := rpc.NewRegistry()
	err := reg.Register(rpc.Method{
		Name: "siptrace.status",
		Help: "Get status or turn on/off siptrace. Parameters: on, off or check.",
		Handler: func(_ context.Context, c *rpc.Call) (any, error) {
			if s, ok := c.Str(0); !ok || s != "check" {
				return nil, &rpc.Fault{Code: 500, Text: "Bad parameter (on, off or check)"}
			}
			return "Enabled", nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, param := range []string{"check", "bogus"} {
		v, err := reg.Call(context.Background(), &rpc.Call{
			Method: "siptrace.status",
			Params: []any{param},
			Peer:   rpc.NewPeer("tcp", "127.0.0.1:40000"),
		})
		fmt.Println(v, err)
	}
	// Output:
	// Enabled <nil>
	// <nil> 500 Bad parameter (on, off or check)
}
