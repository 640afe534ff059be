-- What the client of a completed job should know about how it was drawn, such as a field that had no effect.
create table warnings (
    job integer primary key references jobs (seq) on update cascade on delete cascade,
    -- Of their row in contents: a JSON list of sentences, which may name what the client named.
    sentences integer not null
) strict, without rowid;

create trigger warnings_forget_sentences after delete on warnings begin
    delete from contents where id = old.sentences;
end;
