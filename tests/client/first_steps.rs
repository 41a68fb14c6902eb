use diptych_client::{Client, ClientOptions, Key, NewRecord, Search};
use tokio_stream::StreamExt;

async fn first_steps(address: &str) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(ClientOptions::new(address)).await?;
    let case = NewRecord::new(Key::new("case-1")?).text("Left effusion.").attribute("age", 63);
    let mut results = client.ingest(tokio_stream::iter([case]));
    while let Some(result) = results.next().await {
        println!("{:?}", result?.stored?.outcome);
    }
    for hit in client.search(&Search::new().text("effusion").filter("age >= 40").k(3)).await?.hits {
        println!("{} {:.3} {:?}", hit.key, hit.score, hit.text());
    }
    Ok(())
}
