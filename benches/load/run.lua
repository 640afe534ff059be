-- Submits identical jobs.
wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer load-key"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"input": {"prompt": "a cute magical flying dog, fantasy art drawn by disney concept artists"}}'

function init()
  wrk.path = wrk.path .. "/run"
end
