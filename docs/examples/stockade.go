// Runs a command in a sandbox of its own: go run stockade.go python3 -c 'print(6*7)'
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
)

var client = http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", os.Getenv("STOCKADE_SOCKET"))
}}}

// call performs a request, and ends the program with what the daemon says when it refuses.
func call(method, path string, body any) (answer struct {
	Id, Stdout, Stderr, Code, Message, Hint string
	ExitCode                                int `json:"exit_code"`
}) {
	text, _ := json.Marshal(body)
	request, _ := http.NewRequest(method, "http://stockade/v1"+path, bytes.NewReader(text))
	request.Header.Set("content-type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	json.NewDecoder(response.Body).Decode(&answer)
	if response.StatusCode >= 400 {
		panic(fmt.Sprintf("%s: %s (%s)", answer.Code, answer.Message, answer.Hint))
	}
	return answer
}

func main() {
	sandbox := "/sandboxes/" + call("POST", "/sandboxes", map[string]any{}).Id
	result := call("POST", sandbox+"/commands", map[string]any{"argv": os.Args[1:]})
	call("DELETE", sandbox, nil)
	fmt.Print(result.Stdout)
	fmt.Fprint(os.Stderr, result.Stderr)
	os.Exit(result.ExitCode)
}
