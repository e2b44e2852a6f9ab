package client_test

import (
	"context"
	"fmt"
	"os"

	"siptraced/rpc"
	"siptraced/rpc/client"
	"siptraced/rpc/serve"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("/tmp", "rpc")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	reg := rpc.NewRegistry()
	err = reg.Register(rpc.Method{Name: "core.version", Handler: func(context.Context, *rpc.Call) (any, error) {
		return "siptraced", nil
	}})
	if err != nil {
		panic(err)
	}
	server, err := serve.Listen(ctx, serve.Config{Listeners: []serve.Listener{
		{Protocol: serve.Ctl, Address: "unix:" + dir + "/ctl"},
	}}, serve.Handlers{Registry: reg})
	if err != nil {
		panic(err)
	}
	server.Serve()

	addr, err := client.ParseAddress("unix:" + dir + "/ctl")
	if err != nil {
		panic(err)
	}
	fmt.Println(client.New(addr, client.Config{}).Call(ctx, "core.version"))
	fmt.Println(client.New(addr, client.Config{}).Call(ctx, "core.none"))
	fmt.Println(server.Close(ctx))
	// Output:
	// siptraced <nil>
	// <nil> 500 command core.none not found
	// <nil>
}
