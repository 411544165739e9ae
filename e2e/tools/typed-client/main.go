// Reads metrics.k8s.io by the typed client of k8s.io/metrics, as programs in Go do, and prints what it read: for each
// version and each encoding one JSON document on a line of its own.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/metrics/pkg/client/clientset/versioned"
)

var encodings = []string{"application/json", "application/vnd.kubernetes.protobuf"}

// What one version said in one encoding.
type document struct {
	Version  string `json:"version"`
	Encoding string `json:"encoding"`
	// The type of content that was answered to the last request.
	Answered string `json:"answered"`
	Nodes    any    `json:"nodes"`
	Node     any    `json:"node"`
	Pods     any    `json:"pods"`
	Pod      any    `json:"pod"`
	Selected any    `json:"selected"`
}

// Notes what the server really answered: a client that asks for protobuf takes JSON too.
type recorder struct {
	next     http.RoundTripper
	answered string
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.next.RoundTrip(request)
	if err == nil {
		r.answered = response.Header.Get("Content-Type")
	}
	return response, err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 4 {
		return fmt.Errorf("usage: typed-client NODE NAMESPACE POD, with KUBECONFIG set")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, encoding := range encodings {
		documents, err := read(ctx, encoding, os.Args[1], os.Args[2], os.Args[3])
		if err != nil {
			return fmt.Errorf("%s: %w", encoding, err)
		}
		for _, document := range documents {
			if err := json.NewEncoder(os.Stdout).Encode(document); err != nil {
				return err
			}
		}
	}
	return nil
}

func read(ctx context.Context, encoding, node, namespace, pod string) ([]document, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, err
	}
	config.ContentType = encoding
	recorder := &recorder{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		recorder.next = next
		return recorder
	})
	clients, err := versioned.NewForConfig(rest.AddUserAgent(config, "typed-client"))
	if err != nil {
		return nil, err
	}
	all := metav1.ListOptions{}
	selected := metav1.ListOptions{FieldSelector: "metadata.name=" + pod}
	one := metav1.GetOptions{}
	var errs [10]error
	v1 := document{Version: "v1", Encoding: encoding}
	stable := clients.MetricsV1()
	v1.Nodes, errs[0] = stable.NodeMetricses().List(ctx, all)
	v1.Node, errs[1] = stable.NodeMetricses().Get(ctx, node, one)
	v1.Pods, errs[2] = stable.PodMetricses("").List(ctx, all)
	v1.Pod, errs[3] = stable.PodMetricses(namespace).Get(ctx, pod, one)
	v1.Selected, errs[4] = stable.PodMetricses(namespace).List(ctx, selected)
	v1.Answered = recorder.answered
	v1beta1 := document{Version: "v1beta1", Encoding: encoding}
	beta := clients.MetricsV1beta1()
	v1beta1.Nodes, errs[5] = beta.NodeMetricses().List(ctx, all)
	v1beta1.Node, errs[6] = beta.NodeMetricses().Get(ctx, node, one)
	v1beta1.Pods, errs[7] = beta.PodMetricses("").List(ctx, all)
	v1beta1.Pod, errs[8] = beta.PodMetricses(namespace).Get(ctx, pod, one)
	v1beta1.Selected, errs[9] = beta.PodMetricses(namespace).List(ctx, selected)
	v1beta1.Answered = recorder.answered
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return []document{v1, v1beta1}, nil
}
