-- Requests the status of the jobs in turn. The first argument names the file with their ids.
wrk.headers["Authorization"] = "Bearer load-key"
local requests = {}
local next = 0

function init(args)
  for id in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", wrk.path .. "/status/" .. id)
  end
end

function request()
  next = next % #requests + 1
  return requests[next]
end
