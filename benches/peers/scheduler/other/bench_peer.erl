%% Erlang's runtime in the same rows. One row an invocation; prints the figure, or nothing where there is no such thing.
-module(bench_peer).
-export([main/1]).

-define(OPERATIONS, 1000000).

main([Row]) ->
    %% In a process of its own, as the others do it in a task of their own.
    Main = self(),
    spawn_link(fun() -> Main ! {said, row(string:split(Row, "-", trailing))} end),
    receive
        {said, nothing} -> ok;
        {said, Figure} -> io:format("~w~n", [Figure])
    end,
    halt(0).

row(["spawn", "join"]) -> timed(?OPERATIONS, fun() -> spawn_join(?OPERATIONS) end);
row(["spawn", "all"]) -> timed(?OPERATIONS, fun() -> spawn_all() end);
row(["ping", "pong"]) -> ping_pong();
row(["yield", Tasks]) -> yields(list_to_integer(Tasks));
row(["parked", Tasks]) -> parked(list_to_integer(Tasks));
%% A process that waits for nothing waits for a message: there is no less.
row(["parked-bare", Tasks]) -> parked(list_to_integer(Tasks));
row(_) -> nothing.

timed(Count, Work) ->
    Start = erlang:monotonic_time(nanosecond),
    Work(),
    (erlang:monotonic_time(nanosecond) - Start) / Count.

yields(Tasks) ->
    Each = max(?OPERATIONS div Tasks, 30),
    Yielders = [spawn_monitor(fun() -> receive go -> yield_times(Each) end end) || _ <- lists:seq(1, Tasks)],
    timed(Each * Tasks, fun() ->
        [Pid ! go || {Pid, _} <- Yielders],
        [receive {'DOWN', Reference, process, _, _} -> ok end || {_, Reference} <- Yielders]
    end).

yield_times(0) -> ok;
yield_times(Times) ->
    erlang:yield(),
    yield_times(Times - 1).

%% A child, and a way to know its value.
start(Number) ->
    Reference = make_ref(),
    Parent = self(),
    spawn(fun() -> Parent ! {Reference, Number} end),
    Reference.

join(Reference) ->
    receive {Reference, Number} -> Number end.

spawn_join(0) -> ok;
spawn_join(Times) ->
    join(start(Times)),
    spawn_join(Times - 1).

%% By number and not by reference, in whatever order they come: to look for each in a mailbox of a million would measure
%% the mailbox.
spawn_all() ->
    Parent = self(),
    [spawn(fun() -> Parent ! Number end) || Number <- lists:seq(1, ?OPERATIONS)],
    [receive Number when is_integer(Number) -> ok end || _ <- lists:seq(1, ?OPERATIONS)].

ping_pong() ->
    Other = spawn_link(fun Loop() -> receive {ping, From} -> From ! pong, Loop() end end),
    timed(?OPERATIONS, fun() -> ping_times(Other, ?OPERATIONS) end).

ping_times(_, 0) -> ok;
ping_times(Other, Times) ->
    Other ! {ping, self()},
    receive pong -> ok end,
    ping_times(Other, Times - 1).

parked(Tasks) ->
    Before = resident_bytes(),
    [spawn(fun() -> receive never -> ok end end) || _ <- lists:seq(1, Tasks)],
    join(start(0)),
    (resident_bytes() - Before) / Tasks.

resident_bytes() ->
    {ok, Statm} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = binary:split(Statm, <<" ">>, [global]),
    binary_to_integer(Pages) * 4096.
